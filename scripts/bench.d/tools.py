"""What a measurement is made with: load, sinks that count, facts about processes, and waiting with a limit."""

import os
import pathlib
import re
import signal
import socket
import statistics
import subprocess
import threading
import time

PATIENCE_S = 300
"""How long anything may take before the whole measurement is given up."""

SINK_LOOK_S = 0.004
"""How often a sink's counter is read: the resolution of all rates."""


class Trouble(Exception):
    """A sentence for a person: the measurement cannot go on."""


def wait_for(what, fact, every_s=0.01, patience_s=PATIENCE_S):
    """Returns what `fact` gives as soon as it gives something."""
    end = time.monotonic() + patience_s
    while not (found := fact()):
        if time.monotonic() > end:
            raise Trouble(f"waited {patience_s} s in vain for {what}")
        time.sleep(every_s)
    return found


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_listening(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def median(values):
    return statistics.median(values)


# --- Processes -------------------------------------------------------------------------------------------------------------------


def start(command, log, **options):
    """Starts a program in a session of its own, so that Ctrl-C reaches only us and we end things in order."""
    with open(log, "ab") as end:
        options = {"stdin": subprocess.DEVNULL, "stdout": end, "stderr": end, "start_new_session": True} | options
        return subprocess.Popen(command, **options)


def run(command, log, **options):
    """Runs a program to its end; it must end well."""
    process = start(command, log, **options)
    try:
        code = process.wait(PATIENCE_S)
    except BaseException:
        process.kill()
        process.wait()
        raise
    if code != 0:
        raise Trouble(f"{' '.join(map(str, command))} ended with {code}; see {log}")


def end(process, patience_s=30):
    """Ends a program that we started: it is asked, then made to."""
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _stat(pid):
    """Name, parent, and CPU seconds with those of children that were waited for; nothing if the process is gone."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    name, rest = text[text.index("(") + 1 :].rsplit(")", 1)
    fields = rest.split()
    ticks = sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime of proc(5)
    return name, int(fields[1]), ticks / os.sysconf("SC_CLK_TCK")


def tree(root, without=()):
    """The process and its descendants, with their names; not those with certain names."""
    stats = {pid: stat for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if (stat := _stat(pid))}
    children = {}
    for pid, (_, parent, _) in stats.items():
        children.setdefault(parent, []).append(pid)
    found, wanted = {}, [root] if root in stats else []
    while wanted:
        pid = wanted.pop()
        wanted.extend(children.get(pid, []))
        if stats[pid][0] not in without:
            found[pid] = stats[pid][0]
    return found


def cpu_s(root, without=()):
    """CPU seconds, user and system, of a process and its descendants, those included that have ended."""
    return sum(stat[2] for pid in tree(root, without) if (stat := _stat(pid)))


def pss_mb(root, without=()):
    """Memory of a process and its descendants, shared pages divided among those who share them."""
    total_kb = 0
    for pid in tree(root, without):
        try:
            text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue  # it has just ended
        total_kb += int(re.search(r"^Pss:\s+(\d+)", text, re.M).group(1))
    return total_kb / 1024


class Sampler:
    """Takes the largest value of something that is looked at again and again, for as long as the block runs."""

    def __init__(self, look, every_s=0.1):
        self.largest = 0.0
        self._look, self._every_s = look, every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while not self._over.wait(self._every_s):
            self.largest = max(self.largest, self._look())

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()


# --- Load and its end ------------------------------------------------------------------------------------------------------------


class Sink:
    """An smtp-sink. It prints a counter with every message, and that is how its end is known."""

    def __init__(self, log):
        self.port = free_port()
        self._news = threading.Condition()
        self._count = 0
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        self._process = start(["smtp-sink", "-c", *user, f"127.0.0.1:{self.port}", "1024"], log, stdout=subprocess.PIPE)
        try:
            threading.Thread(target=self._read, daemon=True).start()
            wait_for("smtp-sink to listen", lambda: is_listening(self.port), patience_s=20)
        except BaseException:
            self.stop()
            raise

    def _read(self):
        output, text = self._process.stdout.fileno(), b""
        while piece := os.read(output, 1 << 16):
            text = text[-100:] + piece
            counts = re.findall(rb"mesg=(\d+)\s*\r", text)
            with self._news:
                if counts:
                    self._count = max(self._count, int(counts[-1]))
                self._news.notify_all()
            time.sleep(SINK_LOOK_S)

    @property
    def count(self):
        with self._news:
            return self._count

    def wait(self, count):
        """Waits until so many messages have arrived in all; returns the moment."""
        with self._news:
            if not self._news.wait_for(lambda: self._count >= count, PATIENCE_S):
                raise Trouble(f"after {PATIENCE_S} s only {self._count} of {count} messages had arrived")
            return time.perf_counter()

    def stop(self):
        end(self._process)


def send(port, log, *, count, sessions=10, size=4096):
    """Sends messages with smtp-source, a connection for each; returns when all are accepted."""
    shape = ["-s", sessions, "-m", count, "-l", size, "-f", "sender@bench.test", "-t", "recipient@sink.test"]
    run(["smtp-source", *map(str, shape), f"127.0.0.1:{port}"], log)


def stop_on_signals():
    """Every signal that asks us to end becomes an exception, so that everything is cleaned up."""

    def stop(number, _):
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
