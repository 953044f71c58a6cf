"""What a person's job costs beside a spooler at work: `scripts/bench politeness`.

Each round measures the job alone, beside each system that works its queue off in the background, and beside a flush of ours; all in
turns, because the machine does not stay the same. The drain begins first, so that what is measured includes how long it takes until
the spooler has noticed the job.
"""

import json
import os
import pathlib
import subprocess
import sys

import foreground
import tools
from systems import Ours
from tools import end, median, send, wait_for

JOB_S = 6
"""How long the job takes alone."""

MESSAGES = 20_000


def measure(bench):
    pieces = max(100, int(foreground.pieces_a_second() * JOB_S * bench.options.scale))
    for _ in bench.rounds():
        alone, beside = [], []
        for kind in bench.options.kinds:
            alone.append(job(bench, "alone", pieces))
            beside.append(("drain", kind.name, *drain(bench, kind, pieces, flush=False)))
        alone.append(job(bench, "alone", pieces))
        beside.append(("flush", Ours.name, *drain(bench, Ours, pieces, flush=True)))
        alone.append(job(bench, "alone", pieces))
        usual_s, usual_late = median([found["seconds"] for found in alone]), median([late(found) for found in alone])
        for what, name, found, rate, taken in beside:
            bench.note(("beside", what), name, found["seconds"] / usual_s)
            bench.note(("late", what), name, late(found) - usual_late)
            bench.note(("meanwhile", what), name, rate)
            bench.note(("taken", what), name, taken)


def drain(bench, kind, pieces, flush):
    """The job beside a system with a full queue: what the job found, and meanwhile messages a second and per cent of the machine."""
    count = bench.scaled(MESSAGES)
    with bench.system(kind, held=True) as system:
        send(system.port, bench.log, count=count)
        system.prepare_release()
        settle(system)
        system.release()
        flushing = system.flush() if flush else None
        wait_for(f"{system.name} to begin", lambda: system.sink.count, every_s=0.002)
        before, cpu_before = system.sink.count, tools.cpu_s(system.root, system.uncounted)
        found = job(bench, f"beside {'a flush' if flush else 'a drain'}: {system.name}", pieces)
        delivered = system.sink.count - before
        taken = tools.cpu_s(system.root, system.uncounted) - cpu_before
        words = f"; gate {system.gate()}" if kind is Ours else ""
        bench.say(f"  {system.name:8} {delivered} of {count} messages delivered meanwhile{words}")
        system.sink.wait(count)
        end(flushing)
        return found, delivered / found["seconds"], 100 * taken / found["seconds"] / os.cpu_count()


def settle(system):
    """Waits until the system rests: what accepting has left to do is not part of the drain."""
    usage = [tools.cpu_s(system.root)]

    def rests():
        usage.append(tools.cpu_s(system.root))
        return usage[-1] - usage[-2] < 0.01

    wait_for(f"{system.name} to rest", rests, every_s=0.5, patience_s=60)


def job(bench, label, pieces):
    """Runs the job in a session of its own."""
    program = pathlib.Path(foreground.__file__)
    command = [sys.executable, "-B", str(program), str(pieces)]
    output = subprocess.run(command, start_new_session=True, capture_output=True, text=True, check=True).stdout
    found = json.loads(output)
    busy = os.getloadavg()[0]
    bench.say(f"  job {label}: {found['seconds']:.2f} s, {found['late']} of {found['frames']} frames late (load {busy:.1f})")
    return found


def late(found):
    """Per cent."""
    return 100 * found["late"] / found["frames"]
