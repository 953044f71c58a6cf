"""How soon what a dead worker had in its hands is in the next one's: from kill -9 until the far end sees the next attempt.

The far end is a server of our own that leaves deliveries unanswered until the worker is killed. The next attempt comes from another
worker: noticing the death, the decision, a new process, its logon, a token, a new connection. With several messages in its hands each is
suspect and goes alone, one after another; the last one is told of, too. Every message is in one death only.
"""

import os
import random
import re
import signal
import smtplib
import socketserver
import threading
import time

from systems import Ours
from tools import Trouble, wait_for

KILLS = 120
IN_FLIGHT = (1, 10)
# A worker that dies right after its start is followed more slowly (backoff); this long after it, it is at work.
LIFE_S = (0.15, 0.35)
P99_MAX_MS = 50
COLUMNS = "{:58} {:>10} {:>10} {:>10}   {}"


class FarEnd(socketserver.ThreadingTCPServer):
    """An SMTP server that notes when each attempt comes, and answers it unless it is told to hold."""

    allow_reuse_address = daemon_threads = True
    request_queue_size = 128

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Conversation)
        self.port = self.server_address[1]
        self.news = threading.Condition()
        self.holding, self.attempts, self.kept = False, [], 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def wait(self, what, fact):
        with self.news:
            if not self.news.wait_for(fact, 60):
                raise Trouble(f"waited 60 s in vain for {what}")

    def begin(self, holding):
        with self.news:
            self.holding, self.attempts, self.kept = holding, [], 0


class Conversation(socketserver.StreamRequestHandler):
    """One connection."""

    disable_nagle_algorithm = True

    def handle(self):
        try:
            self.talk()
        except OSError:
            pass  # the worker was killed

    def talk(self):
        self.wfile.write(b"220 far.test\r\n")
        while line := self.rfile.readline():
            word = line[:4].upper()
            if word == b"EHLO":
                self.wfile.write(b"250-far.test\r\n250 PIPELINING\r\n")
            elif word == b"MAIL":
                self.note_attempt()
                self.wfile.write(b"250 ok\r\n")
            elif word == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                while self.rfile.readline() not in (b".\r\n", b""):
                    pass
                with self.server.news:
                    self.server.kept += 1
                    self.server.news.notify_all()
                self.wfile.write(b"250 kept\r\n")
            elif word == b"QUIT":
                return
            else:
                self.wfile.write(b"250 ok\r\n")

    def note_attempt(self):
        server = self.server
        with server.news:
            server.attempts.append(time.perf_counter())
            server.news.notify_all()
            if server.holding:
                # Until the worker is gone: nothing more comes from it.
                server.news.wait_for(lambda: not server.holding, 60)
                raise ConnectionError


def relay_pid(system):
    row = next(row for row in system.status()["providers"] if row["name"] == "relay")
    return row["pid"] if row["state"] == "ready" else None


def kill_once(system, far_end, client, in_flight):
    """Milliseconds until the first message is in the next worker's hands, and until the last one is."""
    time.sleep(random.uniform(*LIFE_S))
    far_end.begin(holding=True)
    for _ in range(in_flight):
        client.sendmail("a@bench.test", ["b@far.test"], b"Subject: one\r\n\r\nbody\r\n")
    far_end.wait("the deliveries to begin", lambda: len(far_end.attempts) == in_flight)
    pid = wait_for("the worker", lambda: relay_pid(system))
    far_end.begin(holding=False)
    start = time.perf_counter()
    os.kill(pid, signal.SIGKILL)
    far_end.wait("the next attempts", lambda: far_end.kept == in_flight)
    wait_for("the queue to be empty", system.is_empty, every_s=0.005)
    attempts = far_end.attempts
    if len(attempts) != in_flight:
        raise Trouble(f"{in_flight} messages were tried {len(attempts)} times after the worker's death")
    return 1000 * (attempts[0] - start), 1000 * (attempts[-1] - start)


def measure(bench):
    """Notes under ("reschedule", messages in flight, "first" or "last") the times of all kills, in order of size."""
    kills = max(10, int(KILLS * bench.options.scale))
    for in_flight in IN_FLIGHT:
        bench.started += 1
        far_end = FarEnd()
        system = Ours(bench.options.programs, bench.folder / f"{bench.started}-reschedule", far_end.port)
        try:
            system.start()
            with smtplib.SMTP("127.0.0.1", system.port) as client:
                times = [kill_once(system, far_end, client, in_flight) for _ in range(kills)]
        except (smtplib.SMTPException, OSError) as error:
            raise Trouble(f"the load broke off: {error}") from error
        finally:
            system.stop()
            far_end.shutdown()
        deaths = len(re.findall(r"worker died", system.log.read_text(errors="replace")))
        if deaths != kills:
            raise Trouble(f"{kills} kills made {deaths} deaths; see {system.log}")
        for which, found in zip(("first", "last"), zip(*times, strict=True), strict=True):
            bench.results[("reschedule", in_flight, which)] = sorted(found)


def show(results):
    """Prints the table; returns whether a must is missed."""
    missed = False
    print(COLUMNS.format("kill -9 of a worker until the next one has", "median", "99 %", "longest", "99 % must be").rstrip())
    for in_flight in IN_FLIGHT:
        for which in ("first", "last"):
            times = results[("reschedule", in_flight, which)]
            if in_flight == 1 and which == "last":
                continue
            label = "its only message" if in_flight == 1 else f"the {which} of its {in_flight} messages, each alone"
            p99 = times[min(len(times) - 1, len(times) * 99 // 100)]
            must = ""
            if which == "first":
                good = p99 <= P99_MAX_MS
                missed |= not good
                must = f"≤ {P99_MAX_MS} ms {'ok' if good else 'MISSED'}"
            shown = [f"{value:.1f} ms" for value in (times[len(times) // 2], p99, times[-1])]
            print(COLUMNS.format(f"{label} ({len(times)} kills)", *shown, must).rstrip())
    return missed
