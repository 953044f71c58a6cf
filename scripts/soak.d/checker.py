#!/usr/bin/env python3
"""Compares what was acknowledged with what arrived. Knows nothing of the spooler: only the records of a run (see records.py).

usage: checker.py FOLDER

A copy for a recipient is counted once. One more of it is explained if the spooler, or the worker that serves this recipient, crashed
between the two (or a moment before the first was written down); a message from the pick-up folder may also be taken twice if the spooler
crashed before its file was gone. Anything else that does not fit is a violation, and the exit code is 1.
"""

import argparse
import collections
import dataclasses
import pathlib
import sys

import records

SLACK_S = 2.0
"""A sink may write down later than it took, on a machine that does other things: so long."""

PICKED_UP = ("sendmail", "flood")
"""Ways that may lead through the pick-up folder."""


@dataclasses.dataclass
class Verdict:
    """The counts of a run, and what is wrong, as sentences."""

    accepted: int = 0
    due: int = 0
    arrived: int = 0
    lost: int = 0
    explained: int = 0
    unexplained: int = 0
    damaged: int = 0
    invented: int = 0
    unacknowledged: int = 0
    reports: int = 0
    violations: list = dataclasses.field(default_factory=list)

    def violation(self, count, sentence):
        setattr(self, count, getattr(self, count) + 1)
        self.violations.append(sentence)


class Crashes:
    """When the spooler or a worker died: only that explains a second copy."""

    def __init__(self, faults):
        self._all = [fault for fault in faults if fault["crash"]]

    def explain(self, provider, begin, end):
        """Whether a crash of the spooler, or of this provider (None: only of the spooler), lies in this time."""
        concerns = ("supervisor", "both", "?", provider)
        return any(
            crash["target"] in concerns and crash["at"] <= end and crash["until"] >= begin - SLACK_S for crash in self._all
        )


def provider_of(recipient):
    """The domain of a recipient names the provider that serves it."""
    return recipient.rsplit("@", 1)[-1].removesuffix(".test")


def check(folder):
    """The verdict on the records in this folder."""
    offered = {row["id"]: row for row in records.read(folder, records.OFFERED)}
    acknowledged = {row["id"]: row["at"] for row in records.read(folder, records.ACKNOWLEDGED)}
    crashes = Crashes(records.read(folder, records.FAULTS))
    verdict = Verdict(accepted=len(acknowledged))
    copies = collections.defaultdict(list)
    for row in records.read(folder, records.ARRIVED):
        _sort_in(row, offered, copies, verdict)
    for name in acknowledged:
        for recipient in offered[name]["recipients"]:
            verdict.due += 1
            if (name, recipient) not in copies:
                verdict.violation("lost", f"{name} for {recipient} was acknowledged and did not arrive")
    for (name, recipient), times in copies.items():
        verdict.arrived += name in acknowledged
        verdict.unacknowledged += name not in acknowledged
        _check_copies(offered[name], recipient, sorted(times), crashes, verdict)
    _check_load(offered, acknowledged, verdict)
    return verdict


def _check_load(offered, acknowledged, verdict):
    """A run in which nothing was lost because nothing was accepted shows nothing."""
    for via in {message["via"] for message in offered.values()} - {offered[name]["via"] for name in acknowledged}:
        verdict.violations.append(f"nothing was accepted by way of {via}")
    if not acknowledged:
        verdict.violations.append("nothing was accepted at all")


def _sort_in(row, offered, copies, verdict):
    """Looks at one copy by itself."""
    message = offered.get(row["id"])
    if row["id"] is None:
        verdict.reports += 1
    elif message is None or row["to"] not in message["recipients"]:
        verdict.violation("invented", f"{row['id']} came for {row['to']}, and nobody sent it there")
    elif row["sha256"] == message["sha256"]:
        copies[row["id"], row["to"]].append(row["at"])
    else:
        verdict.violation("damaged", f"{row['id']} for {row['to']} is not what was sent")


def _check_copies(message, recipient, times, crashes, verdict):
    """Looks at all whole copies of one message for one recipient."""
    for before, after in zip(times, times[1:]):
        twice = message["via"] in PICKED_UP and crashes.explain(None, message["at"], after)
        if crashes.explain(provider_of(recipient), before, after) or twice:
            verdict.explained += 1
        else:
            name = message["id"]
            verdict.violation("unexplained", f"{name} for {recipient} came again after {after - before:.3f} s, and nothing had crashed")


def tell(verdict, out=sys.stdout):
    """Prints the counts, and the first violations."""
    print(f"  accepted      {verdict.accepted} messages, {verdict.due} recipients", file=out)
    print(f"  arrived       {verdict.arrived}; {verdict.unacknowledged} more whose acknowledgement nobody read", file=out)
    print(f"  lost          {verdict.lost}", file=out)
    print(f"  damaged       {verdict.damaged}; invented {verdict.invented}", file=out)
    print(f"  duplicates    {verdict.explained} explained by a crash, {verdict.unexplained} unexplained", file=out)
    print(f"  reports       {verdict.reports}", file=out)
    for sentence in verdict.violations[:20]:
        print(f"  VIOLATION     {sentence}", file=out)
    if len(verdict.violations) > 20:
        print(f"  …and {len(verdict.violations) - 20} more", file=out)


def main():
    parser = argparse.ArgumentParser(description="Compares what was acknowledged with what arrived.")
    parser.add_argument("folder", type=pathlib.Path)
    verdict = check(parser.parse_args().folder)
    tell(verdict)
    return 1 if verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main())
