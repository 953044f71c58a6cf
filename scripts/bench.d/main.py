#!/usr/bin/env python3
"""Measures our spooler side by side with Postfix. Started by scripts/bench, whose --help says what is measured."""

import argparse
import contextlib
import os
import pathlib
import re
import shutil
import sys
import tempfile
import time

import critical
import politeness
import programs
import report
import reschedule
import sandbox
import tokens
import tools
from systems import Ours, Polite, Postfix
from tools import Sampler, Sink, Trouble, median, send, wait_for

PARTS = ("ceiling", "throughput", "cpu", "sendmail", "fsync", "memory", "queue", "politeness", "tokens", "critical",
         "reschedule", "programs", "sandbox")

# Label, sessions, bytes, messages.
LOADS = (
    ("4 KiB, 1 session", 1, 4096, 1000),
    ("4 KiB, 10 sessions", 10, 4096, 5000),
    ("4 KiB, 50 sessions", 50, 4096, 5000),
    ("100 KiB, 10 sessions", 10, 102400, 1000),
)
TEN_SESSIONS = LOADS[1]
SYNCED = re.compile(rb"\b(?:fsync|fdatasync|syncfs|sync)\(")


class Bench:
    """One measurement: its folder, its sinks, its systems, and what was found."""

    def __init__(self, options, folder):
        self.options, self.folder = options, pathlib.Path(folder)
        self.log = self.folder / "tools.log"
        self.results = {}
        self.started = 0

    # --- Pieces ---

    def note(self, row, system, value):
        self.results.setdefault(row, {}).setdefault(system, []).append(value)

    def scaled(self, count):
        return max(20, int(count * self.options.scale))

    def say(self, *words, sep=" "):
        print(*words, sep=sep, file=sys.stderr, flush=True)

    def rounds(self):
        return range(1, self.options.rounds + 1)

    @contextlib.contextmanager
    def sink(self):
        sink = Sink(self.log)
        try:
            yield sink
        finally:
            sink.stop()

    @contextlib.contextmanager
    def system(self, kind, **start):
        """A fresh system with a sink of its own."""
        self.started += 1
        folder = self.folder / f"{self.started}-{kind.name.lower()}"
        with self.sink() as sink:
            made = Postfix(folder, sink.port) if kind is Postfix else kind(self.options.programs, folder, sink.port)
            try:
                made.start(**start)
                made.sink = sink
                yield made
            finally:
                made.stop()

    @contextlib.contextmanager
    def both(self, *more):
        """All systems at once; one that has nothing to do costs nothing. Each has seen some messages already."""
        with contextlib.ExitStack() as stack:
            made = [stack.enter_context(self.system(kind)) for kind in (*self.options.kinds, *more)]
            for system in made:
                self.deliver(system, "", 10, 4096, self.scaled(500))
            yield made

    def deliver(self, system, label, sessions, size, count):
        """Sends messages through a system; seconds until the sink has them all, and CPU seconds until nothing is left to do."""
        before, cpu_before = system.sink.count, tools.cpu_s(system.root, system.uncounted)
        start = time.perf_counter()
        send(system.port, self.log, count=count, sessions=sessions, size=size)
        seconds = system.sink.wait(before + count) - start
        wait_for(f"the queue of {system.name} to be empty", system.is_empty, every_s=0.05)
        cpu = tools.cpu_s(system.root, system.uncounted) - cpu_before
        if label:
            self.say(f"  {system.name:8} {label}: {count / seconds:6.0f}/s, {1000 * cpu / count:.2f} ms CPU")
        return seconds, cpu

    # --- Parts ---

    def ceiling(self):
        for _ in self.rounds():
            for label, sessions, size, count in LOADS:
                with self.sink() as sink:
                    start = time.perf_counter()
                    send(sink.port, self.log, count=self.scaled(count), sessions=sessions, size=size)
                    rate = self.scaled(count) / (sink.wait(self.scaled(count)) - start)
                self.say(f"  no system {label}: {rate:6.0f}/s")
                self.note(("ceiling", label), "none", rate)

    def throughput(self, loads=LOADS):
        with self.both(Polite) as systems:
            for label, sessions, size, count in loads:
                for _ in self.rounds():
                    for system in systems:
                        seconds, cpu = self.deliver(system, label, sessions, size, self.scaled(count))
                        self.note(("rate", label), system.name, self.scaled(count) / seconds)
                        self.note(("cpu", label), system.name, 1000 * cpu / self.scaled(count))

    def cpu(self):
        self.throughput(loads=(TEN_SESSIONS,))

    def sendmail(self):
        message = self.folder / "message"
        text = "From: sender@bench.test\nTo: recipient@sink.test\nSubject: one\n\n" + "A line of the message.\n" * 40
        message.write_text(text)
        with self.both() as systems:
            for _ in self.rounds():
                for system in systems:
                    times = self.call_sendmail(system, message, self.scaled(100))
                    self.say(f"  {system.name:8} sendmail -t: {median(times):.2f} ms")
                    self.note(("sendmail", ""), system.name, median(times))

    def call_sendmail(self, system, message, count):
        """Milliseconds of each call, one after another. That the sink gets them shows that it was this system's sendmail."""
        command, environment = system.sendmail()
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        files = [(os.POSIX_SPAWN_OPEN, 0, str(message), os.O_RDONLY, 0)]
        files += [(os.POSIX_SPAWN_OPEN, number, str(system.log), append, 0o644) for number in (1, 2)]
        before, times = system.sink.count, []
        for _ in range(count):
            start = time.perf_counter()
            pid = os.posix_spawn(command[0], command, environment, file_actions=files)
            _, status = os.waitpid(pid, 0)
            times.append(1000 * (time.perf_counter() - start))
            if status != 0:
                code = os.waitstatus_to_exitcode(status)
                raise Trouble(f"{command[0]} of {system.name} ended with {code}; see {system.log}")
        system.sink.wait(before + count)
        wait_for(f"the queue of {system.name} to be empty", system.is_empty, every_s=0.05)
        return times

    def fsync(self):
        if not shutil.which("strace"):
            self.say("  there is no strace")
            return
        count = self.scaled(2000)
        for _ in self.rounds():
            for kind in self.options.kinds:
                trace = self.folder / f"{self.started}.trace"
                calls = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=fsync,fdatasync,syncfs,sync", "-o", trace]
                with self.system(kind, wrap=calls) as system:
                    self.deliver(system, "", 50, 4096, self.scaled(200))
                    before = len(SYNCED.findall(trace.read_bytes()))
                    self.deliver(system, "", 50, 4096, count)
                    calls = len(SYNCED.findall(trace.read_bytes())) - before
                self.say(f"  {system.name:8} {calls} fsyncs for {count} messages")
                self.note(("fsync", ""), system.name, calls / count)

    def tokens(self):
        tokens.measure(self)

    def memory(self):
        label, sessions, size, count = TEN_SESSIONS
        for _ in self.rounds():
            for kind in self.options.kinds:
                with self.system(kind) as system:
                    self.deliver(system, "", 1, 4096, 1)
                    rest = tools.pss_mb(system.root, system.uncounted)
                    with Sampler(lambda: tools.pss_mb(system.root, system.uncounted)) as memory:
                        self.deliver(system, "", sessions, size, self.scaled(count))
                self.say(f"  {system.name:8} {rest:.1f} MB at rest, {memory.largest:.1f} MB with {label}")
                self.note(("memory", "at rest"), system.name, rest)
                self.note(("memory", "load"), system.name, memory.largest)

    def queue(self):
        count = self.scaled(20_000)
        for _ in self.rounds():
            for kind in self.options.kinds:
                with self.system(kind, held=True) as system:
                    start = time.perf_counter()
                    send(system.port, self.log, count=count)
                    filled = count / (time.perf_counter() - start)
                    if system.sink.count:
                        raise Trouble(f"{system.name} delivered although it was told to hold")
                    system.prepare_release()
                    start = time.perf_counter()
                    system.release()
                    drained = count / (system.sink.wait(count) - start)
                self.say(f"  {system.name:8} {count} queued at {filled:.0f}/s, drained at {drained:.0f}/s")
                self.note(("queue", "filled"), system.name, filled)
                self.note(("queue", "drained"), system.name, drained)

    def politeness(self):
        politeness.measure(self)

    def critical(self):
        critical.run(self)

    def reschedule(self):
        reschedule.measure(self)

    def programs(self):
        programs.measure(self)

    def sandbox(self):
        sandbox.run(self)


def read_options():
    parser = argparse.ArgumentParser(prog="scripts/bench", add_help=False)
    parser.add_argument("part", choices=("all", *PARTS))
    parser.add_argument("--programs", required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--scale", type=float, required=True)
    parser.add_argument("--folder", required=True)
    options = parser.parse_args()
    options.kinds = [Ours, Postfix] if Postfix.is_there() else [Ours]
    return options


def measure(options, folder):
    bench = Bench(options, folder)
    parts = PARTS if options.part == "all" else (options.part,)
    try:
        for part in parts:
            # The throughput part has measured the CPU, too.
            if part == "cpu" and "throughput" in parts:
                continue
            bench.say(f"== {part}")
            getattr(bench, part)()
    except Trouble as trouble:
        bench.say(f"scripts/bench: {trouble}")
        for log in sorted(bench.folder.rglob("*log")):
            if tail := log.read_text(errors="replace").splitlines()[-15:]:
                bench.say(f"-- the end of {log}", *tail, sep="\n")
        return 70
    return report.show(bench.results, compared=Postfix in options.kinds, whole=options.scale >= 1)


def main():
    options = read_options()
    tools.stop_on_signals()
    folder = tempfile.mkdtemp(prefix="spooler-bench.", dir=options.folder)
    try:
        # Postfix's daemons and smtp-sink give up root.
        os.chmod(folder, 0o755)
        return measure(options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
