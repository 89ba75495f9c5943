"""A lastmile of its own: every role in one process with the sandbox, on free ports, in a directory of its own."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

import requests

ROOT = pathlib.Path(__file__).resolve().parents[2]
START_SECONDS_MAX = 60


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class Lastmile:
    """`lastmile serve` as a user starts it, from the binary that the build made."""

    LISTENERS = [
        "listen.public", "listen.callbacks", "listen.operations", "sandbox.systems.control.listen", "sandbox.systems.wechatpay.listen",
        "sandbox.systems.police_430100.listen", "sandbox.systems.police_140100.listen",
    ]

    def __init__(self, directory, config=None):
        """`config`: a configuration file over the default one."""
        self.config = ["--config", config] if config else []
        self.directory = pathlib.Path(directory)
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        self.binary = target / "debug" / "lastmile"
        self.ports = dict(zip(self.LISTENERS, free_ports(len(self.LISTENERS))))
        self.log = self.directory / "lastmile.log"
        self.start()

    @property
    def public(self):
        return f"127.0.0.1:{self.ports['listen.public']}"

    @property
    def control(self):
        return f"http://127.0.0.1:{self.ports['sandbox.systems.control.listen']}"

    def start(self):
        settings = [part for name, port in self.ports.items() for part in ("--set", f"{name}=127.0.0.1:{port}")]
        command = [self.binary, "--sandbox", *self.config, "--data", self.directory / "data", *settings, "serve"]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        ready = f"http://127.0.0.1:{self.ports['listen.operations']}/health/ready"
        end = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < end:
            assert self.process.poll() is None, f"lastmile ended: {self.log.read_text()[-4000:]}"
            try:
                if requests.get(ready, timeout=1).status_code == 200:
                    return
            except requests.RequestException:
                # Not bound yet, or bound and not served yet.
                pass
            time.sleep(0.05)
        raise AssertionError(f"not ready within {START_SECONDS_MAX} s: {self.log.read_text()[-4000:]}")

    def kill(self):
        """kill -9 of everything at once."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        """SIGTERM, as an operator stops it. Returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            shutil.rmtree(self.directory / "data", ignore_errors=True)
