"""The table at the end: medians, ratios, and what must be."""

import critical
import programs
import reschedule
import tokens
from tools import median

RATES = ("4 KiB, 1 session", "4 KiB, 10 sessions", "4 KiB, 50 sessions", "100 KiB, 10 sessions")


def at_least(limit):
    return f"≥ {limit:g} × Postfix", lambda ours, peer: peer and ours >= limit * peer


def at_most(limit):
    return f"≤ {limit:g} × Postfix", lambda ours, peer: peer and ours <= limit * peer


def absolute(limit):
    return f"≤ {limit:g}", lambda ours, peer: ours <= limit


def above(limit):
    return f"> {limit:g}", lambda ours, peer: ours > limit


ANYTHING = ("", None)


def must_of_line(fifo, mode):
    """With a section that is there already, and the class that is the default of the kind, nothing is lost."""
    return absolute(0) if mode[2] == "rr" or (mode[1] != "never" and fifo >= 4096) else ANYTHING


def must_be_later(mode):
    """Once the section of a burst is there, nothing is lost."""
    return absolute(0) if mode[1] != "never" else ANYTHING


# Key of the results, what it is, its unit, digits, what must be.
ROWS = (
    *((("ceiling", label), f"smtp-source into smtp-sink: {label}", "/s", 0, ANYTHING) for label in RATES),
    (("rate", RATES[0]), f"accept to delivered: {RATES[0]}", "/s", 0, ANYTHING),
    (("rate", RATES[1]), f"accept to delivered: {RATES[1]}", "/s", 0, at_least(4)),
    (("rate", RATES[2]), f"accept to delivered: {RATES[2]}", "/s", 0, ANYTHING),
    (("rate", RATES[3]), f"accept to delivered: {RATES[3]}", "/s", 0, ANYTHING),
    *((("rate", label), f"the same with the idle gate: {label}", "/s", 0, ANYTHING, "polite") for label in RATES),
    (("cpu", RATES[0]), f"CPU per message: {RATES[0]}", "ms", 2, ANYTHING),
    (("cpu", RATES[1]), f"CPU per message: {RATES[1]}", "ms", 2, at_most(0.25)),
    (("cpu", RATES[2]), f"CPU per message: {RATES[2]}", "ms", 2, ANYTHING),
    (("cpu", RATES[3]), f"CPU per message: {RATES[3]}", "ms", 2, ANYTHING),
    (("sendmail", ""), "sendmail -t, one after another", "ms", 2, at_most(0.5)),
    (("fsync", ""), "fsyncs per message: 4 KiB, 50 sessions", "", 3, absolute(0.25)),
    (("memory", "at rest"), "memory at rest (PSS)", "MB", 1, ANYTHING),
    (("memory", "load"), f"memory, largest: {RATES[1]} (PSS)", "MB", 1, at_most(1)),
    (("queue", "filled"), "accepted while delivery is held: 20,000 messages", "/s", 0, ANYTHING),
    (("queue", "drained"), "delivered when it is released: 20,000 messages", "/s", 0, ANYTHING),
    (("beside", "drain"), "a job on all cores beside a drain: times as long at the same speed", "", 3, absolute(1.02)),
    (("times", "drain"), "the bare ratio of the times", "", 3, ANYTHING),
    (("late", "drain"), "its late frames, above those alone", "%", 2, absolute(1)),
    (("meanwhile", "drain"), "delivered beside the job", "/s", 0, above(0)),
    (("taken", "drain"), "CPU that it took meanwhile, of the machine", "%", 2, ANYTHING),
    (("beside", "flush"), "the job beside a user's flush: times as long at the same speed", "", 3, ANYTHING),
    (("times", "flush"), "the bare ratio of the times", "", 3, ANYTHING),
    (("late", "flush"), "its late frames, above those alone", "%", 2, ANYTHING),
    (("meanwhile", "flush"), "flushed beside the job", "/s", 0, ANYTHING),
    (("taken", "flush"), "CPU that it took meanwhile, of the machine", "%", 2, ANYTHING),
    (("sandbox", "rate"), "accept to delivered with sandboxes: 4 KiB, 10 sessions", "/s", 0, ANYTHING),
    (("sandbox", "open"), "the same without", "/s", 0, ANYTHING),
    (("sandbox", "cost"), "what the sandboxes cost", "%", 1, absolute(3)),
    (("sandbox", "relay"), "a worker closes its sandbox: smtp", "ms", 2, absolute(2)),
    (("sandbox", "submission"), "a worker closes its sandbox: smtp-in", "ms", 2, absolute(2)),
    *(
        (("lost", critical.label(fifo, mode[0])), f"lost at 115,200 baud: {critical.label(fifo, mode[0])}", "bytes", 0,
         must_of_line(fifo, mode))
        for fifo in critical.FIFOS for mode in critical.MODES
    ),
    *(
        (("later", critical.label(fifo, mode[0])), f"after 0.1 s of each: {critical.label(fifo, mode[0])}", "bytes", 0,
         must_be_later(mode))
        for fifo in critical.FIFOS for mode in critical.MODES if mode[3] > 1
    ),
)
COLUMNS = "{:50} {:>12} {:>12} {:>8}   {:15} {}"


def show(results, compared, whole):
    """Prints the table; returns the exit code: 1 if a must is missed."""
    missed = ("tokens", 16) in results and tokens.show(results, median)
    if ("reschedule", 1, "first") in results:
        missed |= reschedule.show(results)
    if ("programs", programs.LOADS[0][0]) in results:
        missed |= programs.show(results)
    if not any(key in results for key, *_ in ROWS):
        return 1 if missed else 0
    print(COLUMNS.format("median", "ours", "Postfix", "ratio", "must be", "").rstrip())
    for key, label, unit, digits, (must, holds), *system in ROWS:
        if key not in results:
            continue
        values = {system: median(found) for system, found in results[key].items()}
        ours, peer = values.get(*system or ("ours", values.get("none"))), values.get("Postfix")
        word = ""
        if holds is not None:
            verdict = holds(ours, peer)
            word = "not compared" if verdict is None else "ok" if verdict else "MISSED"
            missed |= word == "MISSED"
        shown = [f"{value:,.{digits}f} {unit}".strip() if value is not None else "-" for value in (ours, peer)]
        ratio = f"{ours / peer:.2f}" if ours and peer else ""
        print(COLUMNS.format(label, *shown, ratio, must, word).rstrip())
    if not whole:
        print("This was a fraction of the messages: it shows that it runs, not how fast.")
    if not compared:
        print("Postfix was not measured: it needs root, or sudo without a password, and the Debian package postfix.")
    return 1 if missed else 0
