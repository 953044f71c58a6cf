"""What the sandbox of workers costs: messages a second with and without it, in turns, and how long a worker takes to close it.

Nothing else differs between the two. What a worker's start takes longer is what it reports itself: from reading its settings until
everything is closed.
"""

import contextlib

from systems import Ours
from tools import Sink, median, wait_for

RESTARTS = 20
PAIRS = 24
"""Measurements with and without, in each round: the difference is smaller than what the machine does by itself."""


class Open(Ours):
    """Ours without sandboxes."""

    name = "open"

    def _config(self):
        return super()._config().replace('kind = "smtp', 'sandbox = false\nkind = "smtp')


def run(bench):
    with contextlib.ExitStack() as stack:
        closed, without = (started(bench, stack, kind) for kind in (Ours, Open))
        for system in (closed, without):
            bench.deliver(system, "", 10, 4096, bench.scaled(1000))
        for number in range(PAIRS * bench.options.rounds):
            # Who goes first takes turns as well.
            order = (closed, without) if number % 2 else (without, closed)
            rates = {}
            for system in order:
                count = bench.scaled(5000)
                seconds, _ = bench.deliver(system, "4 KiB, 10 sessions", 10, 4096, count)
                rates[system.name] = count / seconds
            bench.note(("sandbox", "rate"), "ours", rates["ours"])
            bench.note(("sandbox", "open"), "ours", rates["open"])
            bench.note(("sandbox", "cost"), "ours", 100 * (1 - rates["ours"] / rates["open"]))
        for provider in ("relay", "submission"):
            times = closing(closed, provider)
            bench.say(f"  {provider}: closed in {median(times):.2f} ms, at most {max(times):.2f} ms")
            bench.note(("sandbox", provider), "ours", median(times))


def started(bench, stack, kind):
    sink = stack.enter_context(contextlib.closing(Closing(bench.log)))
    system = kind(bench.options.programs, bench.folder / f"sandbox-{kind.name}", sink.port)
    stack.callback(system.stop)
    system.start()
    system.sink = sink
    return system


class Closing(Sink):
    def close(self):
        self.stop()


def closing(system, provider):
    """Milliseconds that workers of a provider took to close their sandboxes."""
    times = []
    for _ in range(RESTARTS):
        before = system.detail(provider)["generation"]
        system.restart(provider)

        def ready():
            row = system.detail(provider)
            return row["generation"] != before and row["state"] == "ready"

        wait_for(f"the next worker of {provider}", ready)
        times.append(system.detail(provider)["closing_us"] / 1000)
    return times
