"""A lastmile of its own on free ports, in a directory of its own: every role in one process with the sandbox, or a process a role."""

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
        self.binary = binary()
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
        wait_ready(self.process, self.ports["listen.operations"], self.log)

    def kill(self):
        """kill -9 of everything at once."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        """SIGTERM, as an operator stops it. Returns the exit code."""
        try:
            return stop(self.process)
        finally:
            shutil.rmtree(self.directory / "data", ignore_errors=True)


class Split:
    """Every role as a process of its own, by `serve --role`, over mutual TLS; each with a store of its own in its own directory."""

    ROLES = ["sandbox", "identity", "catalog", "payments", "adapter", "cases", "gateway"]
    SYSTEMS = ["control", "wechatpay", "police_430100", "police_140100"]

    def __init__(self, directory, settings):
        """`settings`: TOML that every process reads."""
        self.directory, self.processes = pathlib.Path(directory), {}
        self.binary = binary()
        ports = iter(free_ports(4 * len(self.ROLES) + len(self.SYSTEMS)))
        systems = {name: f"127.0.0.1:{next(ports)}" for name in self.SYSTEMS}
        mesh = {role: f"127.0.0.1:{next(ports)}" for role in self.ROLES if role != "sandbox"}
        self.control, outside = f"http://{systems['control']}", self.directory / "data"
        lines = [settings, "[sandbox]", "enabled = true", "[sandbox.at]"]
        lines += [f'{name} = "{at}"' for name, at in systems.items()]
        lines += ["[sandbox.systems]", f'data_dir = "{outside}"', "[identity]", f'sandbox_keys_dir = "{outside}/sandbox/clients"']
        lines += [line for name, at in systems.items() for line in (f"[sandbox.systems.{name}]", f'listen = "{at}"')]
        lines += ["[tls]", f'directory = "{self.directory}/tls"']
        lines += [line for role, at in mesh.items() for line in (f"[mesh.{role}]", f'endpoint = "https://{at}"')]
        config = self.directory / "split.toml"
        config.write_text("\n".join(lines) + "\n")
        subprocess.run([self.binary, "ca", "ensure", "--ca", self.directory / "ca", "--out", self.directory / "tls"], cwd=ROOT, check=True)
        try:
            # The world outside is first: it makes the keys that payments reads at its start.
            for role in self.ROLES:
                own = {name: f"127.0.0.1:{next(ports)}" for name in ("listen.public", "listen.callbacks", "listen.operations")}
                own |= {"listen.mesh": mesh[role]} if role in mesh else {}
                self.start(role, config, own)
                if role == "gateway":
                    self.public = own["listen.public"]
            for process, operations, log in self.processes.values():
                wait_ready(process, operations, log)
        except BaseException:
            self.stop()
            raise

    def start(self, role, config, own):
        settings = [part for name, at in own.items() for part in ("--set", f"{name}={at}")]
        log = self.directory / f"{role}.log"
        command = [self.binary, "serve", "--role", role, "--config", config, "--data", self.directory / role, *settings]
        with open(log, "ab") as out:
            process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out)
        operations = own["listen.operations"].rpartition(":")[2]
        self.processes[role] = process, operations, log
        if role == "sandbox":
            wait_ready(process, operations, log)

    def stop(self):
        """Stops the door first and the world outside last. Returns the exit codes by role."""
        return {role: stop(process) for role, (process, _, _) in reversed(self.processes.items())}


def binary():
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "lastmile"


def wait_ready(process, port, log):
    end = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < end:
        assert process.poll() is None, f"lastmile ended: {log.read_text()[-4000:]}"
        try:
            if requests.get(f"http://127.0.0.1:{port}/health/ready", timeout=1).status_code == 200:
                return
        except requests.RequestException:
            # Not bound yet, or bound and not served yet.
            pass
        time.sleep(0.05)
    raise AssertionError(f"not ready within {START_SECONDS_MAX} s: {log.read_text()[-4000:]}")


def stop(process):
    """SIGTERM, as an operator stops it. Returns the exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(30)
    finally:
        process.kill()
