"""A line that cannot wait: how many bytes the provider `serial` loses on a busy machine, with and without a critical section.

The other end is tests/line/main.rs; its head says what counts as lost. What arrived as messages must be what was sent, byte for byte.
"""

import email
import http.client
import json
import os
import pathlib
import subprocess

from systems import Polite
from tools import Trouble, end, wait_for

# Bytes that the line keeps for its reader: a 16550 UART, and the buffer of a terminal.
FIFOS = (16, 4096)
# How it is named, `critical`, `critical_class`, and how many bursts.
MODES = (
    ("without a section", "never", "nice", 1),
    ("section, nice", "always", "nice", 1),
    ("section, real time", "always", "rr", 1),
    ("bursts, no section", "never", "nice", 4),
    ("bursts, by default", None, None, 4),
)
# Between bursts: longer than the end of a frame takes, and than the idle gate takes to close.
PAUSE_S = 5


def label(fifo, mode):
    return f"{fifo} bytes, {mode}"


class Line(Polite):
    """A spooler with a serial line, and maildirs for what comes in."""

    def __init__(self, programs, folder, mode, device):
        super().__init__(programs, folder, 0)
        self.mode, self.device = mode, device

    def start(self):
        super().start()
        wait_for("the line", lambda: "is open" in self.log.read_text(errors="replace"))
        if self.mode[1] == "always":
            wait_for("the section", lambda: self.row()["critical"])

    def row(self):
        return next(row for row in self.status()["providers"] if row["name"] == "line")

    def _config(self):
        (self.folder / "mail").mkdir()
        _, critical, critical_class, _ = self.mode
        section = "" if critical is None else f'''
critical = "{critical}"
critical_class = "{critical_class}"
critical_max = "10m"'''
        head = super()._config().split("[provider.relay]")[0]
        return f"""{head}
[provider.line]
kind = "serial"
device = "{self.device}"
run_as = "root"
framing = "idle"
gap = "1s"
frame_max = "16M"{section}
to = ["x@archive.test"]
[provider.archive]
kind = "maildir"
claims = ["@archive.test"]
path = "{self.folder}/mail/{{local}}"
"""

    def received(self):
        """The bytes of all messages so far, in order."""
        found = sorted((self.folder / "mail").glob("x/new/*"), key=lambda file: file.stat().st_mtime_ns)
        return b"".join(email.message_from_bytes(file.read_bytes()).get_payload(decode=True) for file in found)


def busy_loops():
    """One on each core, each in a session of its own, as somebody's computing would be."""
    cores = len(os.sched_getaffinity(0))
    command = ["sh", "-c", "while :; do :; done"]
    return [subprocess.Popen(command, start_new_session=True) for _ in range(cores)]


def measure(bench, folder, fifo, mode, seconds):
    """Sends over a line for so long, at once or in bursts; what the other end says of it."""
    target = pathlib.Path(f"{folder}.sent")
    line = pathlib.Path(bench.options.programs) / "examples" / "line"
    command = [line, str(fifo), str(seconds), target, str(mode[3]), str(PAUSE_S)]
    other_end = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    system, busy = None, []
    try:
        system = Line(bench.options.programs, folder, mode, other_end.stdout.readline().strip())
        system.start()
        busy = busy_loops()
        other_end.stdin.write("\n")
        other_end.stdin.flush()
        result = json.loads(other_end.stdout.readline())
        priority = system.row()["priority"]
        for loop in busy:
            end(loop)
        sent = target.read_bytes()
        wait_for("what was sent to arrive", lambda: len(system.received()) >= len(sent), every_s=0.1, patience_s=120)
        if system.received() != sent:
            raise Trouble(f"what arrived over the line is not what was sent; see {folder}")
        return result, priority
    except http.client.HTTPException as error:
        raise Trouble(f"the spooler does not answer: {error}") from error
    finally:
        for loop in busy:
            end(loop)
        other_end.kill()
        other_end.wait()
        if system is not None:
            system.stop()


def run(bench):
    seconds = max(2, int(10 * bench.options.scale))
    for number in bench.rounds():
        for fifo in FIFOS:
            for mode in MODES:
                folder = bench.folder / f"line-{number}-{fifo}-{MODES.index(mode)}"
                result, priority = measure(bench, folder, fifo, mode, seconds)
                all_bytes = result["passed"] + result["lost"]
                bench.say(
                    f"  {label(fifo, mode[0])}: {result['lost']} of {all_bytes} bytes lost,"
                    f" {result['early']} of them in the first 0.1 s of a burst; at most {result['largest']} unread;"
                    f" a processor stood still {result['stills']} times, {result['still_us'] / 1000:.1f} ms in all ({priority})"
                )
                bench.note(("lost", label(fifo, mode[0])), "ours", result["lost"])
                if mode[3] > 1:
                    bench.note(("later", label(fifo, mode[0])), "ours", result["lost"] - result["early"])
