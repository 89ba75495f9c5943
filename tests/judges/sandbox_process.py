"""A sandbox of its own, on free ports, in a directory of its own; it can be killed and started again."""

import json
import os
import pathlib
import signal
import subprocess
import time

import requests

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Sandbox:
    """The sandbox alone, started from the example binary that `cargo build --all-targets` makes."""

    def __init__(self, directory, alipay=None, **wechatpay):
        self.directory = pathlib.Path(directory)
        config = {
            "data_dir": str(self.directory),
            "control": {"listen": "127.0.0.1:0"},
            "wechatpay": {"listen": "127.0.0.1:0", "notify_second": "20ms", "refund_after": "50ms", **wechatpay},
            "alipay": {"listen": "127.0.0.1:0", "notify_second": "1ms", **(alipay or {})},
            "police_430100": {"listen": "127.0.0.1:0"},
            "police_140100": {"listen": "127.0.0.1:0"},
        }
        self.config_file = self.directory / "sandbox.json"
        self.config_file.write_text(json.dumps(config))
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        binary = target / "debug" / "examples" / "serve"
        self.process = subprocess.Popen([binary, self.config_file], stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert line, "the sandbox did not start"
        self.addresses = json.loads(line)

    def kill(self):
        """kill -9: nothing is flushed, nothing is drained."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(20)
        finally:
            self.process.kill()
            self.process.stdout.close()

    def url(self, system):
        return f"http://{self.addresses[system]}"

    def control(self, method, path, expected=None, **options):
        answer = requests.request(method, self.url("control") + path, timeout=30, **options)
        if expected is not None:
            assert answer.status_code == expected, answer.text
        return answer

    def stage(self, system, operation, fault, **more):
        body = {"system": system, "operation": operation, "fault": fault, **more}
        self.control("POST", "/faults", 201, json=body)

    def journal(self, system):
        text = self.control("GET", f"/journal/{system}", 200).text
        return [json.loads(line) for line in text.splitlines()]


def eventually(look, seconds=30.0):
    """Looks again and again until there is something to see."""
    end = time.monotonic() + seconds
    while True:
        seen = look()
        if seen or time.monotonic() > end:
            return seen
        time.sleep(0.02)
