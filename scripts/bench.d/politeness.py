"""What a person's job costs beside a spooler at work: `scripts/bench politeness`.

Each round measures the job alone, beside each system that works its queue off in the background, and beside a flush of ours; all in
turns, because the machine does not stay the same. The drain begins first, so that what is measured includes how long it takes until
the spooler has noticed the job.

The cores of a virtual machine are now faster, now slower, by ten per cent and more, whatever runs on them. So what counts is how much
CPU time goes by for each second of it that the job gets: that is more by exactly what others take from it. The bare ratio of the times is
shown too.
"""

import json
import os
import pathlib
import subprocess
import sys

import foreground
import tools
from systems import Ours, Polite
from tools import end, median, send, wait_for

JOB_S = 15
"""How long the job takes alone."""

MESSAGES = 20_000


def measure(bench):
    pieces = max(100, int(foreground.pieces_a_second() * JOB_S * bench.options.scale))
    for _ in bench.rounds():
        alone, beside = [], []
        for kind in (Polite if kind is Ours else kind for kind in bench.options.kinds):
            alone.append(job(bench, "alone", pieces))
            name = Ours.name if kind is Polite else kind.name
            beside.append(("drain", name, *drain(bench, kind, pieces, flush=False)))
        alone.append(job(bench, "alone", pieces))
        beside.append(("flush", Ours.name, *drain(bench, Polite, pieces, flush=True)))
        alone.append(job(bench, "alone", pieces))
        usual, usual_s, usual_late = (median([of(found) for found in alone]) for of in (stretch, seconds, late))
        for what, name, found, rate, taken in beside:
            bench.note(("beside", what), name, stretch(found) / usual)
            bench.note(("times", what), name, seconds(found) / usual_s)
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
        words = f"; gate {system.gate()}" if kind is Polite else ""
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
    bench.say(f"  job {label}: {found['seconds']:.2f} s, stretched by {found['stretch']:.3f}, {found['late']} of {found['frames']} frames late (load {busy:.1f})")
    return found


def seconds(found):
    return found["seconds"]


def stretch(found):
    return found["stretch"]


def late(found):
    """Per cent."""
    return 100 * found["late"] / found["frames"]
