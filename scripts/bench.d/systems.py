"""The two that are measured: our spooler and a private Postfix, both set up to accept on one port and to relay everything to a sink."""

import http.client
import json
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess

from tools import Trouble, end, free_port, is_listening, run, start, tree, wait_for


class Ours:
    """Our spooler: one provider that listens, one that relays."""

    name = "ours"
    uncounted = ()
    idle_gate = "off"
    """As Postfix has none, the load itself must not count as somebody's work."""

    def __init__(self, programs, folder, sink_port):
        self.programs, self.folder, self.sink_port = pathlib.Path(programs), pathlib.Path(folder), sink_port
        self.log = self.folder / "log"
        self.socket = self.folder / "control.sock"
        self.process = None

    def start(self, wrap=(), held=False):
        self.folder.mkdir(parents=True)
        config = self.folder / "spooler.toml"
        config.write_text(self._config())
        command = [*wrap, self.programs / "spooler", "run", "--config", config]
        environment = os.environ | {"SPOOLER_WORKER": str(self.programs / "spooler-worker")}
        self.process = start(command, self.log, env=environment)
        wait_for("every provider to be ready", self._is_ready, patience_s=60)
        status = self.status()
        self.root = status["supervisor"]["pid"]
        listening = next(row for row in status["providers"] if row["name"] == "submission")
        self.port = int(listening["identity"].rsplit(":", 1)[1])
        if held:
            self._relay("pause")

    def _config(self):
        return f"""
[mail]
hostname = "bench.test"
[scheduler]
gate = "{self.idle_gate}"
[spool]
path = "{self.folder}/spool"
[control]
socket = "{self.socket}"
[provider.submission]
kind = "smtp-in"
listen = ["127.0.0.1:0"]
[provider.relay]
kind = "smtp"
host = "127.0.0.1:{self.sink_port}"
tls = "none"
address_types = ["SMTP"]
"""

    def _is_ready(self):
        if self.process.poll() is not None:
            raise Trouble(f"the spooler ended with {self.process.returncode}; see {self.log}")
        try:
            return all(row["state"] == "ready" for row in self.status()["providers"])
        except (OSError, http.client.HTTPException):
            return False

    def _ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("spooler", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.connect(str(self.socket))
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise Trouble(f"{method} {path}: {answer.status} {content.decode(errors='replace')}")
        return json.loads(content)

    def status(self):
        return self._ask("GET", "/v1/status")

    def is_empty(self):
        return self.status()["supervisor"]["queued"] == 0

    def _relay(self, action):
        self._ask("POST", "/v1/providers/relay/do", {"action": action})

    def restart(self, provider):
        self._ask("POST", f"/v1/providers/{provider}/do", {"action": "restart"})

    def detail(self, provider):
        return self._ask("GET", f"/v1/providers/{provider}")

    def prepare_release(self):
        """Nothing to prepare."""

    def release(self):
        self._relay("resume")

    def flush(self):
        """Starts a person's flush."""
        environment = os.environ | {"SPOOLER_SOCKET": str(self.socket)}
        return start([self.programs / "spoolctl", "flush"], self.log, env=environment)

    def gate(self):
        """What its idle gate says."""
        return self.status()["supervisor"]["gate"]

    def sendmail(self):
        """Command line and environment of its sendmail."""
        link = self.folder / "sendmail"
        if not link.is_symlink():
            link.symlink_to(self.programs / "spoolctl")
        # No message must ever end up in the machine's own spool.
        own = {"SPOOLER_SOCKET": str(self.socket), "SPOOLER_PICKUP": str(self.folder / "pickup")}
        return [str(link), "-t"], os.environ | own

    def stop(self):
        if self.process is None or self.process.poll() is not None:
            return
        # Under strace the spooler is a child; the tracer ends with it.
        for pid, name in tree(self.process.pid).items():
            if name == "spooler":
                os.kill(pid, signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            for pid in tree(self.process.pid):
                os.kill(pid, signal.SIGKILL)
            self.process.wait()


class Polite(Ours):
    """The same with the idle gate, which is the default."""

    name = "polite"
    idle_gate = "auto"


class Postfix:
    """A Postfix with configuration, queue and port of its own. The system's one, if there is one, is not touched."""

    name = "Postfix"
    # It does what elsewhere the system's log daemon does, whose work nobody would count.
    uncounted = ("postlogd",)

    def __init__(self, folder, sink_port):
        self.folder, self.sink_port = pathlib.Path(folder), sink_port
        self.log = self.folder / "log"
        self.config, self.queue = self.folder / "config", self.folder / "queue"
        self.tracer = None
        self.started = False

    @staticmethod
    def is_there():
        return os.geteuid() == 0 and all(map(shutil.which, ("postfix", "postconf", "smtp-source", "smtp-sink")))

    def start(self, wrap=(), held=False):
        self.port = free_port()
        for folder in (self.config, self.queue, self.folder / "data"):
            folder.mkdir(parents=True)
        owner = pwd.getpwnam("postfix")
        os.chown(self.folder / "data", owner.pw_uid, owner.pw_gid)
        (self.config / "main.cf").write_text(self._main_cf(held))
        (self.config / "master.cf").write_text(self._master_cf())
        self.started = True
        if wrap:
            self.tracer = start([*wrap, "postfix", "-c", self.config, "start"], self.log)
        else:
            run(["postfix", "-c", self.config, "start"], self.log)
        wait_for("Postfix to listen", lambda: self._master() and is_listening(self.port), patience_s=60)
        self.root = self._master()

    def _main_cf(self, held):
        # Where the system logs, Postfix would fill that log; where it does not, logging costs nothing, and stays free.
        own_log = f"maillog_file = {self.folder}/maillog\nmaillog_file_prefixes = {self.folder}" if has_syslog() else ""
        return f"""
compatibility_level = 3.6
queue_directory = {self.queue}
data_directory = {self.folder}/data
myhostname = bench.test
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
relayhost = [127.0.0.1]:{self.sink_port}
alias_maps =
alias_database =
local_transport = error:there is no local delivery
defer_transports = {"smtp" if held else ""}
{own_log}
"""

    def _master_cf(self):
        internal = {
            "pickup": "n - n 60 1 pickup", "cleanup": "n - n - 0 cleanup", "qmgr": "n - n 300 1 qmgr",
            "tlsmgr": "- - n 1000? 1 tlsmgr", "rewrite": "- - n - - trivial-rewrite", "bounce": "- - n - 0 bounce",
            "defer": "- - n - 0 bounce", "trace": "- - n - 0 bounce", "verify": "- - n - 1 verify",
            "flush": "n - n 1000? 0 flush", "proxymap": "- - n - - proxymap", "smtp": "- - n - - smtp",
            "relay": "- - n - - smtp", "showq": "n - n - - showq", "error": "- - n - - error",
            "retry": "- - n - - error", "discard": "- - n - - discard", "anvil": "- - n - 1 anvil",
            "scache": "- - n - 1 scache",
        }  # fmt: skip
        lines = [f"127.0.0.1:{self.port} inet n - n - - smtpd"]
        lines += [f"{name} unix {rest}" for name, rest in internal.items()]
        lines.append("postlog unix-dgram n - n - 1 postlogd")
        return "\n".join(lines) + "\n"

    def _master(self):
        try:
            return int((self.queue / "pid" / "master.pid").read_text())
        except (OSError, ValueError):
            return None

    def is_empty(self):
        folders = (self.queue / name for name in ("maildrop", "incoming", "active", "deferred"))
        return not any(files for folder in folders for _, _, files in os.walk(folder))

    def prepare_release(self):
        """Takes the hold out of the configuration and waits until the queue manager has read it."""
        before = self._named("qmgr")
        run(["postconf", "-c", self.config, "-e", "defer_transports="], self.log)
        run(["postfix", "-c", self.config, "reload"], self.log)
        wait_for("the queue manager to start anew", lambda: not before & self._named("qmgr"))

    def release(self):
        run(["postqueue", "-c", self.config, "-f"], self.log)

    def _named(self, wanted):
        return {pid for pid, name in tree(self.root).items() if name == wanted}

    def sendmail(self):
        """Command line and environment of its sendmail."""
        program = subprocess.run(["postconf", "-d", "-h", "sendmail_path"], capture_output=True, text=True, check=True)
        return [program.stdout.strip(), "-C", str(self.config), "-t"], dict(os.environ)

    def stop(self):
        if not self.started:
            return
        self.started = False
        master = self._master()
        if master and tree(master):
            start(["postfix", "-c", self.config, "stop"], self.log).wait()
            try:
                wait_for("Postfix to stop", lambda: not tree(master), patience_s=20)
            except Trouble:
                for pid in tree(master):
                    os.kill(pid, signal.SIGKILL)
        end(self.tracer)


def has_syslog():
    return os.path.exists("/dev/log")
