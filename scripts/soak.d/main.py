#!/usr/bin/env python3
"""Kills a spooler under load, again and again, and checks that nothing was lost. Started by scripts/soak, whose --help says more."""

import argparse
import collections
import math
import pathlib
import random
import re
import shutil
import signal
import sys
import tempfile
import time

import checker
import control
import sinks
from faults import Faults
from load import Load
from world import Stopwatch, Trouble, World

CALM_S = 2
"""Load without faults, before the first and after the last."""

FLUSH_AFTER_S, STUCK_S = 45, 120
"""When nothing has moved for so long, what waits is flushed; then it is a violation."""


NOT_NOW = (71, 73, 74, 75)
"""Exit codes of a supervisor that has not what it needs to start; it is started again."""


NO_MEMORY = ("Cannot allocate memory", "Resource temporarily unavailable", "memory allocation of")
"""What a worker says that gets no memory."""


class Run:
    """One run: its world, and what was seen."""

    def __init__(self, folder, options):
        self.folder, self.options = folder, options
        self.world = World(folder, options.programs, options.seed)
        self.load = Load(self.world, options.seed)
        self.faults = Faults(self.world, self.load, options.seed, options.gap)
        self.released = self.flushed = 0
        self.violations = []

    def campaign(self):
        """Everything from the first message to the last one delivered."""
        self.world.start()
        self.load.start()
        time.sleep(CALM_S)
        self.faults.run(self.options.kills)
        time.sleep(CALM_S)
        self.load.stop()
        self.restart()
        self.drain()
        self.restart()
        self.drain()

    def restart(self):
        """Stops and starts it in order: this also empties the pick-up folder."""
        code = self.world.stop()
        if code != 0:
            self.violations.append(f"the supervisor ended with {code} when it was asked to")
        self.world.start_again()

    def drain(self):
        """Waits until nothing is queued. What was set aside, because it was killed with its worker too often, goes on."""
        least, moved = math.inf, Stopwatch()
        while (left := self.left()) > 0:
            if left < least:
                least = left
                moved.start()
            still = moved.seconds()
            if still > STUCK_S:
                answer = self.world.ask("GET", "/v1/messages")
                self.violations.append(f"{left} messages are stuck: {answer and answer[1][:2000].decode()}")
                return
            if still > FLUSH_AFTER_S and not self.flushed:
                self.flushed = left
                self.world.command("/v1/flush", outbound=True, no_wait=True)
            done = self.world.command("/v1/messages/do", action="release", filter={"state": "quarantined"})
            self.released += done["done"] if done else 0
            time.sleep(0.1)

    def left(self):
        """Messages in the queue and in the pick-up folder."""
        picked = sum(path.is_file() for path in self.folder.glob("spool/pickup/[!.]*"))
        status = self.world.status()
        return status["supervisor"]["queued"] + picked if status and status["supervisor"]["text"] == "running" else math.inf

    def check(self):
        """Prints what was found; whether all is well."""
        sinks.collect(self.world.mail, self.folder)
        verdict = checker.check(self.folder)
        self.look_at_the_spooler()
        missed = control.planted(self.folder)
        self.tell()
        checker.tell(verdict)
        print(f"  control       {len(control.ERRORS) - len(missed)} of {len(control.ERRORS)} planted errors found")
        for sentence in missed + self.violations:
            print(f"  VIOLATION     {sentence}")
        return not (verdict.violations or missed or self.violations)

    def look_at_the_spooler(self):
        """It must end only when somebody ends it, and must not panic."""
        for at, pid, code in self.world.ended:
            excused = pid in self.faults.killed or (pid in self.faults.starved and code in NOT_NOW)
            if code != 0 and not excused:
                self.violations.append(f"the supervisor {pid} ended by itself with {code} at {at:.3f}")
        self.violations += [f"a trouble did not come about: {error}" for error in self.faults.errors]
        self.violations += [f"log: {line}" for line in panics(self.world.log())[:5]]

    def tell(self):
        def counts(of):
            return ", ".join(f"{name} {count}" for name, count in of.items())

        died = collections.Counter(code for _, _, code in self.world.ended)
        print(f"kills         {sum(self.faults.kills.values())}: {counts(self.faults.kills)}")
        print(f"troubles      {counts(self.faults.troubles)}")
        print(f"  starts        {self.world.starts} of the supervisor; it ended with {counts(died)}")
        print(f"  acknowledged  {counts(self.load.accepted)}")
        print(f"  refused       {counts(self.load.refused)}; without an answer: {counts(self.load.unknown)}")
        print(f"  set aside     {self.released} and released; flushed, because nothing moved: {self.flushed}")


def panics(log):
    """Lines about panics; but a worker that gets no memory or no thread says so, ends, and is no worse than one that is killed."""
    lines = log.splitlines()
    found = []
    for number, line in enumerate(lines):
        provider = re.search(r'provider="\w+"', line)
        because = [other for other in lines[number + 1 : number + 4] if provider and provider[0] in other]
        repeated = "; stderr: " in line
        if "panicked at" in line and not repeated and not any(word in other for word in NO_MEMORY for other in because):
            found.append(line)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=pathlib.Path, required=True)
    parser.add_argument("--kills", type=int, required=True)
    parser.add_argument("--gap", type=float, required=True, help="seconds between two kills, on average")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = pathlib.Path(tempfile.mkdtemp(prefix="spooler-soak-", dir=options.folder))
    folder.chmod(0o755)  # what the spooler runs has a user of its own, if this one is root
    print(f"soak kills: {options.kills} kills, seed {options.seed}", flush=True)
    begin, well = time.monotonic(), False
    run = Run(folder, options)
    try:
        run.campaign()
        well = run.check()
        print(f"  time          {time.monotonic() - begin:.0f} s")
    except Trouble as trouble:
        print(f"  VIOLATION     {trouble}")
    finally:
        run.world.close()
        if well and not options.keep:
            shutil.rmtree(folder)
        else:
            print(f"seed {options.seed}; everything is in {folder}")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
