"""The negative control: errors are planted in copies of a run's records, and the checker has to find each of them."""

import pathlib
import shutil
import tempfile

import checker
import records

LATER_S = 86_400


def planted(folder):
    """Plants each error and returns the sentences about those that were not found."""
    missed = []
    for name, (plant, count) in ERRORS.items():
        with tempfile.TemporaryDirectory(prefix="control-", dir=folder.parent) as copy:
            copy = pathlib.Path(copy)
            for record in (records.OFFERED, records.ACKNOWLEDGED, records.ARRIVED, records.FAULTS):
                shutil.copy(folder / record, copy / record)
            before = getattr(checker.check(copy), count)
            plant(copy)
            found = getattr(checker.check(copy), count) - before
        if found != 1:
            missed.append(f"the checker counts {found} instead of 1 after {name}")
    return missed


def _arrived_once(folder):
    """All copies, and one of them that was acknowledged and is the only one for its recipient. Nor did it come by the pick-up folder,
    where any crash since it was left there explains another copy."""
    rows = records.read(folder, records.ARRIVED)
    picked_up = {row["id"] for row in records.read(folder, records.OFFERED) if row["via"] in checker.PICKED_UP}
    acknowledged = {row["id"] for row in records.read(folder, records.ACKNOWLEDGED)} - picked_up
    seen = [(row["id"], row["to"]) for row in rows]
    times = {key: 0 for key in seen}
    for key in seen:
        times[key] += 1
    return rows, next(row for row, key in zip(rows, seen) if row["id"] in acknowledged and times[key] == 1)


def _drop(folder):
    rows, one = _arrived_once(folder)
    records.write(folder, records.ARRIVED, [row for row in rows if row is not one])


def _double(folder):
    """The copies lie in a time without crashes: a day after the last one."""
    rows, one = _arrived_once(folder)
    last = max([row["until"] for row in records.read(folder, records.FAULTS)] + [row["at"] for row in rows])
    one["at"] = last + LATER_S
    records.write(folder, records.ARRIVED, [*rows, {**one, "at": one["at"] + 1}])


def _change(folder):
    rows, one = _arrived_once(folder)
    records.write(folder, records.ARRIVED, [*rows, {**one, "sha256": "0" * 64}])


def _misdirect(folder):
    rows, one = _arrived_once(folder)
    records.write(folder, records.ARRIVED, [*rows, {**one, "to": "somebody@else.test"}])


ERRORS = {
    "a copy was dropped": (_drop, "lost"),
    "a copy was doubled without a crash": (_double, "unexplained"),
    "a copy was changed": (_change, "damaged"),
    "a copy went to somebody else": (_misdirect, "invented"),
}
