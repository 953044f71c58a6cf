"""The system that is put under stress: a folder, a real spooler with real workers, and whoever starts it again when it dies."""

import contextlib
import http.client
import json
import mmap
import os
import pathlib
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import sinks

HERE = pathlib.Path(__file__).parent
PATIENCE_S = 120
PAUSE_S_MAX = 10.0
"""Two looks at a stopwatch are never further apart, unless everything was stopped."""
RESTART_S_MAX = 0.1
"""A service manager takes up to so long to start what has died."""

CONFIGURATION = """\
# reloaded {reloads} times
[mail]
hostname = "soak.test"

[spool]
path = "{folder}/spool"
min_free = "0"

[control]
socket = "{folder}/control.sock"

[scheduler]
gate = "off"

[worker]
program = "{folder}/worker"
stop_timeout = "10s"

[retry]
first = "1s"
max = "2s"
max_age = "30d"
delay_warning = "0"

[provider.submission]
kind = "smtp-in"
listen = ["127.0.0.1:{port}"]

[provider.relay]
kind = "smtp"
host = "127.0.0.1:{sink}"
tls = "none"
claims = ["@relay.test"]
connections = {connections}

[provider.local]
kind = "maildir"
claims = ["@local.test"]
path = "{folder}/mail/maildir/{{local}}"

[provider.program]
kind = "pipe"
claims = ["@program.test"]
command = ["{keep}", "{folder}/mail/kept", "{{recipient}}"]
"""


class Trouble(Exception):
    """A sentence for a person: the run cannot go on."""


class Stopwatch:
    """How long something lasts, for whoever looks often. While this process was stopped with the rest, no time passed."""

    def __init__(self):
        self.start()

    def start(self):
        self._passed_s, self._looked = 0.0, time.monotonic()

    def seconds(self):
        now = time.monotonic()
        self._passed_s += min(now - self._looked, PAUSE_S_MAX)
        self._looked = now
        return self._passed_s


def wait_for(what, fact, patience_s=PATIENCE_S):
    """Returns what `fact` gives as soon as it gives something."""
    watch = Stopwatch()
    while not (found := fact()):
        if watch.seconds() > patience_s:
            raise Trouble(f"waited {patience_s} s in vain for {what}")
        time.sleep(0.02)
    return found


def fixed_port(chance):
    """A free port below those that the kernel gives to connections: it stays free while nobody listens."""
    while True:
        port = chance.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Connection(http.client.HTTPConnection):
    """HTTP on a Unix socket."""

    def __init__(self, path, timeout):
        super().__init__("spooler", timeout=timeout)
        self._path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Clock:
    """The wall clock of the spooler and its workers, if it can be turned: that needs a C compiler."""

    def __init__(self, folder):
        self.library = folder / "clock.so"
        self._path = folder / "clock"
        self._path.write_bytes(bytes(8))
        compiler = shutil.which("cc")
        self.turns = compiler is not None
        if self.turns:
            subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", self.library, HERE / "clock.c"], check=True)
        with open(self._path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8)

    def turn(self, offset_s):
        self._map[:] = struct.pack("=q", int(offset_s * 1e9))

    def environment(self):
        return {"LD_PRELOAD": str(self.library), "SOAK_CLOCK": str(self._path)} if self.turns else {}


class World:
    """A folder with everything in it; started by `start`, ended by `close`, whatever happens."""

    def __init__(self, folder, programs, seed):
        self.folder, self.programs = folder, programs
        self.clock = Clock(folder)
        chance = random.Random(f"{seed} ports")
        self.port, self.sink_port = fixed_port(chance), fixed_port(chance)
        self.mail = folder / "mail"
        self.mail.mkdir()
        self.keep = sinks.prepare(self.mail)
        self.reloads = 0
        self.starts = 0
        self.ended = []
        """How the supervisor ended, each time: (time, process id, exit code)."""
        self._chance = random.Random(f"{seed} manager")
        self._supervisor = None
        self._wanted = threading.Event()
        self._over = threading.Event()
        self._sink = None
        self._keeper = threading.Thread(target=self._keep_running, daemon=True)
        self._write_worker()
        self.configure()

    def _write_worker(self):
        """The worker gets no variables from the supervisor; what turns its clock is put in front of it."""
        variables = " ".join(f"{key}='{value}'" for key, value in self.clock.environment().items())
        worker = self.folder / "worker"
        worker.write_text(f'#!/bin/sh\n{variables} exec "{self.programs}/spooler-worker" "$@"\n')
        worker.chmod(0o755)
        (self.folder / "sendmail").symlink_to(self.programs / "spoolctl")

    def configure(self):
        """Writes the configuration, each time a little different."""
        text = CONFIGURATION.format(
            folder=self.folder, port=self.port, sink=self.sink_port, keep=self.keep, reloads=self.reloads,
            connections=8 + self.reloads % 3,
        )
        new = self.folder / "spooler.toml.new"
        new.write_text(text)
        new.rename(self.folder / "spooler.toml")
        self.reloads += 1

    # --- The spooler ---

    def start(self):
        command = [sys.executable, "-B", HERE / "sinks.py", str(self.sink_port), self.folder]
        with open(self.folder / "sink.log", "ab") as log:
            self._sink = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log, start_new_session=True)
        self._wanted.set()
        self._keeper.start()
        wait_for("every provider to be ready", self.is_ready)

    def _keep_running(self):
        """What a service manager does: starts the supervisor again, soon after it has ended."""
        while not self._over.is_set():
            if not self._wanted.wait(0.1):
                continue
            with open(self.folder / "log", "ab") as log:
                self._supervisor = subprocess.Popen(
                    [self.programs / "spooler", "run", "--config", self.folder / "spooler.toml"],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                    env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nonexistent", **self.clock.environment()},
                )
            self.starts += 1
            code = self._supervisor.wait()
            self.ended.append((time.time(), self._supervisor.pid, code))
            self._over.wait(self._chance.uniform(0, RESTART_S_MAX))

    def supervisor(self):
        """The process of the supervisor, if it runs."""
        process = self._supervisor
        return process.pid if process and process.returncode is None else None

    def workers(self):
        """The processes of the supervisor's workers."""
        try:
            text = pathlib.Path(f"/proc/{self.supervisor()}/task/{self.supervisor()}/children").read_text()
        except OSError:
            return []
        return [int(pid) for pid in text.split()]

    def stop(self):
        """Stops the supervisor as an administrator does, and returns its exit code."""
        pid = wait_for("a supervisor to stop", self.supervisor)
        self._wanted.clear()
        count = len(self.ended)
        os.kill(pid, signal.SIGTERM)
        wait_for("the supervisor to stop", lambda: len(self.ended) > count)
        return self.ended[-1][2]

    def start_again(self):
        self._wanted.set()
        wait_for("every provider to be ready", self.is_ready)

    def close(self):
        self._over.set()
        while self._keeper.is_alive():
            if pid := self.supervisor():
                os.kill(pid, signal.SIGKILL)
            self._keeper.join(0.1)
        if self._sink:
            self._sink.kill()
            self._sink.wait()

    # --- What it says ---

    def ask(self, method, path, body=None, timeout=10):
        """Status and body of an answer; nothing if there is none, or not a whole one."""
        connection = Connection(self.folder / "control.sock", timeout)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def status(self):
        answer = self.ask("GET", "/v1/status", timeout=5)
        return json.loads(answer[1]) if answer and answer[0] == 200 else None

    def is_ready(self):
        status = self.status()
        return status and all(row["state"] == "ready" for row in status["providers"])

    def command(self, path, **body):
        answer = self.ask("POST", path, json.dumps(body), timeout=60)
        return json.loads(answer[1].splitlines()[-1]) if answer and answer[0] == 200 else None

    def log(self):
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""
