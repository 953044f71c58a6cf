"""The load: clients that hand over messages by SMTP, by sendmail, on the control socket and in the pick-up folder.

A message counts as acknowledged when its client has read the acknowledgement whole. Without one, nobody knows and nobody counts on it; no
client hands a message over twice.
"""

import json
import os
import random
import smtplib
import subprocess
import threading
import time

import records

CLIENTS = {"smtp": 3, "sendmail": 2, "socket": 2}
PAUSE_S_MAX = 0.1
"""Between two messages of one client."""
BACKLOG_MAX = 300
"""Messages in the queue above which clients wait."""
PROVIDERS = ("relay", "local", "relay", "local", "relay", "local", "program")
"""A program takes three processes for each recipient, so it gets few."""
USERS = 40
SIZES = ((0.70, 200, 4_000), (0.20, 4_000, 30_000), (0.07, 30_000, 120_000), (0.03, 140_000, 600_000))
"""Share, least and most bytes; the last are beyond what is kept in the database."""
SENDER = "sender@relay.test"


def _block(seed):
    """Text that all messages are cut from: short and long lines, dots, bytes beyond ASCII, blanks at ends, empty lines."""
    chance = random.Random(f"{seed} block")
    lines = []
    while sum(map(len, lines)) < 700_000:
        words = " ".join(chance.choice(("spool", "queue", "..", "straße", "From ", "x" * 60)) for _ in range(chance.randrange(12)))
        lines.append(chance.choice(("", "", ".", "..", "From ")).encode() + words.encode() + b"\n")
    return b"".join(lines)


class Message:
    """A message with an id of its own. Content has LF line ends."""

    def __init__(self, via, name, chance, block):
        self.via, self.id = via, name
        self.recipients = self._draw_recipients(chance)
        _, least, most = chance.choices(SIZES, [share for share, _, _ in SIZES])[0]
        start = block.index(b"\n", chance.randrange(len(block) - most - 1000)) + 1
        end = block.index(b"\n", start + chance.randint(least, most) - 100) + 1
        header = (
            f"X-Soak-Id: {name}\nFrom: <{SENDER}>\nTo: soak:;\nSubject: {name}\nMessage-ID: <{name}@soak.test>\n"
            "Date: Mon, 01 Jan 2024 00:00:00 +0000\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n"
            "Content-Transfer-Encoding: 8bit\n\n"
        )
        self.content = header.encode() + block[start:end]

    @staticmethod
    def _draw_recipients(chance):
        count = chance.choice((1, 1, 1, 1, 2, 3, 6))
        drawn = {f"u{chance.randrange(USERS)}@{chance.choice(PROVIDERS)}.test" for _ in range(count)}
        return sorted(drawn)

    def submission(self):
        """As the control socket and the pick-up folder take it."""
        to = [{"address": recipient} for recipient in self.recipients]
        envelope = {"sender": SENDER, "recipients": to, "body": "8bit"}
        return json.dumps({"envelope": envelope}).encode() + b"\n" + self.content


class Load:
    """All clients, and what they have offered and had acknowledged."""

    def __init__(self, world, seed):
        self._world, self._seed, self._block = world, seed, _block(seed)
        self._offered = records.Record(world.folder, records.OFFERED)
        self._acknowledged = records.Record(world.folder, records.ACKNOWLEDGED)
        self._over, self._queued = threading.Event(), 0
        self._lock, self._floods = threading.Lock(), 0
        self.accepted, self.refused, self.unknown = ({way: 0 for way in (*CLIENTS, "flood")} for _ in range(3))
        send = {"smtp": self._smtp, "sendmail": self._sendmail, "socket": self._socket}
        self._threads = [
            threading.Thread(target=self._client, args=(via, number, send[via]), daemon=True)
            for via, count in CLIENTS.items()
            for number in range(count)
        ]
        self._threads.append(threading.Thread(target=self._watch, daemon=True))

    def start(self):
        for thread in self._threads:
            thread.start()

    def stop(self):
        """Ends it; each client finishes what it is about."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _watch(self):
        """Knows how much is queued, so that the load never outruns the deliveries by much."""
        while not self._over.wait(0.25):
            if status := self._world.status():
                self._queued = status["supervisor"]["queued"]

    def _client(self, via, number, send):
        chance = random.Random(f"{self._seed} {via} {number}")
        count = 0
        while not self._over.wait(chance.uniform(0, PAUSE_S_MAX)):
            if self._queued <= BACKLOG_MAX:
                count += 1
                self._hand_over(Message(via, f"{via}-{number}-{count}", chance, self._block), send)

    def _hand_over(self, message, send):
        digest = records.digest(message.content)
        self._offered.add(id=message.id, via=message.via, at=time.time(), recipients=message.recipients,
                          size=len(message.content), sha256=digest)
        verdict = send(message)
        if verdict:
            self._acknowledged.add(id=message.id, at=time.time())
        counts = {True: self.accepted, False: self.refused, None: self.unknown}[verdict]
        with self._lock:
            counts[message.via] += 1

    # --- Ways in: True if it was acknowledged, False if it was refused, None if nobody knows ---

    _connections = threading.local()

    def _smtp(self, message):
        try:
            client = getattr(self._connections, "client", None)
            if client is None:
                client = self._connections.client = smtplib.SMTP("127.0.0.1", self._world.port, "soak.test", timeout=20)
            content = message.content.replace(b"\n", b"\r\n")
            left_out = client.sendmail(SENDER, message.recipients, content, ["body=8bitmime"])
            return None if left_out else True
        except smtplib.SMTPServerDisconnected:
            verdict = None
        except smtplib.SMTPResponseException:
            verdict = False
        except smtplib.SMTPRecipientsRefused:
            verdict = False
        except OSError:
            verdict = None
        if client is not None:
            client.close()
        self._connections.client = None
        return verdict

    def _sendmail(self, message):
        environment = {
            **os.environ,
            "SPOOLER_SOCKET": str(self._world.folder / "control.sock"),
            "SPOOLER_PICKUP": str(self._world.folder / "spool/pickup"),
        }
        command = [self._world.folder / "sendmail", "-i", "-f", SENDER, *message.recipients]
        with open(self._world.folder / "sendmail.log", "ab") as log:
            try:
                done = subprocess.run(command, input=message.content, stdout=log, stderr=log, env=environment, timeout=60)
            except subprocess.TimeoutExpired:
                return None
        return done.returncode == 0

    def _socket(self, message):
        answer = self._world.ask("POST", "/v1/messages", message.submission(), timeout=20)
        return answer and answer[0] == 200 and "id" in json.loads(answer[1])

    def flood(self, count, chance):
        """Drops many messages into the pick-up folder at once."""
        folder = self._world.folder / "spool/pickup"
        self._floods += 1

        def deposit(message):
            hidden = folder / f".{message.id}"
            hidden.write_bytes(message.submission())
            hidden.rename(folder / message.id)
            return True

        for number in range(count):
            self._hand_over(Message("flood", f"flood-{self._floods}-{number}", chance, self._block), deposit)
