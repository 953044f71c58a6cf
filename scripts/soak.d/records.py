"""The records of a run: files of one JSON object a line. The only thing that load, sinks, faults and checker have in common.

offered.jsonl       what a client began to hand over: id, via, at, recipients, size, sha256
acknowledged.jsonl  what it read an acknowledgement for, whole: id, at
arrived.jsonl       each copy that a sink took for one recipient: id, to, at, sha256
faults.jsonl        what was done to the spooler: what, target, at, until, crash

Times are seconds since 1970 by the clock that nobody turns.
"""

import hashlib
import json
import threading

OFFERED, ACKNOWLEDGED, ARRIVED, FAULTS = "offered.jsonl", "acknowledged.jsonl", "arrived.jsonl", "faults.jsonl"

FIRST = b"X-Soak-Id: "
"""How each message begins; what stands before it was put there on the way."""


class Record:
    """A file to which many threads add lines. Each line is written at once, so that it survives whoever wrote it."""

    def __init__(self, folder, name):
        self._lock = threading.Lock()
        self._file = open(folder / name, "ab", buffering=0)

    def add(self, **fields):
        line = json.dumps(fields).encode() + b"\n"
        with self._lock:
            self._file.write(line)

    def close(self):
        self._file.close()


def read(folder, name):
    path = folder / name
    if not path.exists():
        return []
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def write(folder, name, rows):
    with open(folder / name, "w", encoding="utf-8") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)


def digest(content):
    """What is compared: every byte of the message, whichever line end the way uses."""
    return hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()


def copy_of(content):
    """What a copy that arrived is: its id and its digest. The id is None if it is none of ours."""
    start = content.find(FIRST)
    if start < 0 or content[max(0, start - 1) : start] not in (b"", b"\n"):
        return {"id": None, "sha256": digest(content)}
    message = content[start:]
    name = message[len(FIRST) :].split(b"\n", 1)[0].strip().decode("ascii", "replace")
    return {"id": name, "sha256": digest(message)}
