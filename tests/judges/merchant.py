"""A merchant's endpoint: keeps what comes, answers what it is told to answer."""

import http.server
import queue
import threading
import urllib.parse


class Endpoint:
    """Listens on a free port. Without another word it answers 200 and `success`."""

    def __init__(self):
        self.received = queue.Queue()
        self.answers = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                outer.received.put(self.rfile.read(int(self.headers["Content-Length"])))
                status, body = outer.answers.pop(0) if outer.answers else (200, b"success")
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/notify"

    def next(self, seconds=30):
        """The parameters of the next form that comes."""
        form = self.received.get(timeout=seconds).decode()
        return dict(urllib.parse.parse_qsl(form, keep_blank_values=True, strict_parsing=True))

    def close(self):
        self.server.shutdown()
        self.server.server_close()
