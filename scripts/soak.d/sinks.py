#!/usr/bin/env python3
"""Where the messages of a run arrive: an SMTP server, maildirs, and a program. All that came is in arrived.jsonl.

usage: sinks.py PORT FOLDER    serves SMTP

The server is a process of its own. It writes a copy down before it says that it took it, and puts off one recipient in fifty.
Maildirs and what the program kept are read when everything is over.
"""

import pathlib
import random
import socketserver
import sys
import time

import records

PUT_OFF_ONE_IN = 50

PROGRAM = """#!/bin/sh
# Keeps what it is given; what is under new/ was read to its end.
set -e
cat >"$1/tmp/$MESSAGE_ID.$$.$2"
mv "$1/tmp/$MESSAGE_ID.$$.$2" "$1/new/"
"""


class Session(socketserver.StreamRequestHandler):
    """One SMTP connection."""

    disable_nagle_algorithm = True

    def say(self, line):
        self.wfile.write(line.encode() + b"\r\n")

    def handle(self):
        try:
            self.converse()
        except (OSError, EOFError):
            pass  # whoever spoke has died

    def converse(self):
        self.say("220 sink.test ESMTP")
        recipients = []
        while line := self.rfile.readline():
            word = line.split(b":")[0].strip().upper().decode("ascii", "replace")
            if word.startswith("EHLO"):
                self.say("250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES")
            elif word == "MAIL FROM":
                recipients = []
                self.say("250 2.1.0 ok")
            elif word == "RCPT TO":
                if random.randrange(PUT_OFF_ONE_IN) == 0:
                    self.say("451 4.2.0 later")
                else:
                    recipients.append(line.split(b"<")[1].split(b">")[0].decode())
                    self.say("250 2.1.5 ok")
            elif word == "DATA" and recipients:
                self.say("354 go on")
                copy = records.copy_of(self.content())
                for recipient in recipients:
                    self.server.record.add(to=recipient, at=time.time(), **copy)
                self.say("250 2.0.0 kept")
            elif word == "QUIT":
                self.say("221 2.0.0 bye")
                return
            else:
                self.say("250 2.0.0 ok" if word in ("RSET", "NOOP") else "503 5.5.1 what?")

    def content(self):
        lines = []
        while (line := self.rfile.readline()) != b".\r\n":
            if not line:
                raise EOFError
            lines.append(line.removeprefix(b"."))
        return b"".join(lines)


class Server(socketserver.ThreadingTCPServer):
    """The SMTP server."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port, folder):
        self.record = records.Record(folder, records.ARRIVED)
        super().__init__(("127.0.0.1", port), Session)


def prepare(mail):
    """Makes the folders, and the program; returns its path."""
    for name in ("maildir", "kept/tmp", "kept/new"):
        (mail / name).mkdir(parents=True)
        (mail / name).chmod(0o1777)  # a program of the spooler has another user, if this one is root
    program = mail / "keep"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    return program


def collect(mail, folder):
    """Writes down what is in the maildirs and what the program kept."""
    record = records.Record(folder, records.ARRIVED)
    for path in (mail / "maildir").glob("*/new/*"):
        record.add(to=f"{path.parent.parent.name}@local.test", **_copy_at(path))
    for path in (mail / "kept/new").iterdir():
        record.add(to=path.name.split(".", 2)[2], **_copy_at(path))
    record.close()


def _copy_at(path):
    """A copy in a file; it arrived when the file got its name."""
    return {"at": path.stat().st_ctime, **records.copy_of(path.read_bytes())}


if __name__ == "__main__":
    with Server(int(sys.argv[1]), pathlib.Path(sys.argv[2])) as server:
        server.serve_forever()
