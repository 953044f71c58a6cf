"""How fast a token goes round among workers that all want it, beside the same round over bare sockets in the same run.

A turn is the time from the moment when one worker gives its token back until the next one runs: over the spooler that is a word to the
supervisor, its decision, and a word to the next worker; over bare sockets a parent passes a turn on with a read, a write and epoll.
"""

import array
import os
import time

from tools import Trouble, end, run, start, wait_for

WORKERS = (1, 16, 128)
SECONDS = 4
"""How long turns are noted."""
START_S = {1: 2, 16: 3, 128: 12}
"""Before that: everybody starts, and the round gets warm."""
P99_MAX, COST_MAX = 2.0, 1.5
COLUMNS = "{:44} {:>12} {:>12} {:>8}   {:18} {}"


def measure(bench):
    """Notes what was found under ("tokens", count) for both, in turns."""
    for _ in bench.rounds():
        for count in WORKERS:
            for system, go_round in (("bare", _bare), ("ours", _ours)):
                found = go_round(bench, count)
                if not found:
                    raise Trouble(f"no turn was noted with {count} workers, {system}; see {bench.log}")
                bench.note(("tokens", count), system, found)
                times = ", ".join(f"{key} {value:.1f} µs" for key, value in found.items())
                bench.say(f"  {system:8} {count:3} workers: {times}")


def _folder(bench, name):
    bench.started += 1
    folder = bench.folder / f"{bench.started}-{name}"
    folder.mkdir(parents=True)
    return folder


def _program(bench):
    return bench.options.programs + "/examples/turn-worker"


def _times(bench, count):
    start_ns = time.monotonic_ns() + int(START_S[count] * 1e9)
    return start_ns, start_ns + int(max(0.5, SECONDS * bench.options.scale) * 1e9)


def _bare(bench, count):
    folder = _folder(bench, "bare")
    begins, ends = _times(bench, count)
    run([_program(bench), "--raw", str(count), str(begins), str(ends), folder], bench.log)
    return _statistics(folder)


def _ours(bench, count):
    folder = _folder(bench, "tokens")
    begins, ends = _times(bench, count)
    providers = "".join(
        f'[provider.p{number}]\nkind = "turns"\nfrom = "{begins}"\nuntil = "{ends}"\nfolder = "{folder}"\n'
        for number in range(count)
    )
    config = folder / "spooler.toml"
    config.write_text(
        f'[mail]\nhostname = "bench.test"\n[spool]\npath = "{folder}/spool"\n[control]\nsocket = "{folder}/control.sock"\n'
        f"[scheduler]\nslots = 1\n{providers}"
    )
    environment = os.environ | {"SPOOLER_WORKER": _program(bench)}
    process = start([bench.options.programs + "/spooler", "run", "--config", config], bench.log, env=environment)
    try:
        wait_for("the turns", lambda: len(list(folder.glob("*.turns"))) == count or process.poll() is not None)
        if process.poll() is not None:
            raise Trouble(f"the spooler ended with {process.returncode}; see {bench.log}")
    finally:
        end(process, 60)
    return _statistics(folder)


def _statistics(folder):
    """Median and 99th percentile of turns and the mean cost of one, microseconds; the workers' own time is not in it."""
    turns = []
    for file in folder.glob("*.turns"):
        numbers = array.array("Q", file.read_bytes())
        turns.extend(zip(numbers[0::2], numbers[1::2], strict=True))
    turns.sort()
    gaps = sorted(after[0] - before[1] for before, after in zip(turns, turns[1:], strict=False) if after[0] > before[1])
    if len(gaps) < 100:
        return None
    cost = (turns[-1][0] - turns[0][1]) / (len(turns) - 1)
    found = {"p50": gaps[len(gaps) // 2], "p99": gaps[len(gaps) * 99 // 100], "cost": cost}
    return {key: value / 1000 for key, value in found.items()}


def show(results, median):
    """Prints the table; returns whether a must is missed."""
    values = {
        (count, key, system): median([found[key] for found in results[("tokens", count)][system]])
        for count in WORKERS
        for key in ("p50", "p99", "cost")
        for system in ("ours", "bare")
    }
    missed = False
    print(COLUMNS.format("median of the rounds", "ours", "bare sockets", "ratio", "must be", "").rstrip())
    for count in WORKERS:
        for key, label in (("p50", "median turn"), ("p99", "99th percentile"), ("cost", "cost of a grant")):
            ours, bare = values[count, key, "ours"], values[count, key, "bare"]
            must, word = "", ""
            if (count, key) == (16, "p99"):
                must, word = f"≤ {P99_MAX:g} × bare", "ok" if ours <= P99_MAX * bare else "MISSED"
            if (count, key) == (128, "cost"):
                fewer = values[16, "cost", "ours"]
                must = f"≤ {COST_MAX:g} × {fewer:.1f} µs"
                word = "ok" if ours <= COST_MAX * fewer else "MISSED"
            missed |= word == "MISSED"
            name = f"{label}, {count} worker{'s' if count > 1 else ''}"
            row = (name, f"{ours:.1f} µs", f"{bare:.1f} µs", f"{ours / bare:.2f}", must, word)
            print(COLUMNS.format(*row).rstrip())
    return missed
