"""What is done to the spooler while it works. Drawn from the seed, and written down with its time.

```text
 kills      one after another: a worker, the supervisor, both            they end when as many as asked for have hit a process
 troubles   beside them, at most one of each kind at once: stop, descriptors, memory, clock, reload, flood, flush
            each ends by itself, or with the process that it hit
```
"""

import contextlib
import os
import pathlib
import random
import resource
import signal
import subprocess
import threading
import time

import records

KILLS = {"worker": 6, "supervisor": 3, "both": 1}
"""What is killed, and how often beside the others."""

TROUBLES = {"stop": 5, "descriptors": 3, "memory": 1, "clock": 3, "reload": 1, "flood": 1, "flush": 1}
TROUBLES_PER_KILL = 0.6
LASTS_S = (0.05, 1.5)
FLOOD = (20, 60)
TURN_S_MAX = 2 * 86_400
TRIES = 3


def _started(pid):
    """When a process started, in ticks: tells it from another with the same id. Nothing if it is gone, or dead."""
    try:
        state, *others = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return None if state in "ZX" else others[18]
    except OSError:
        return None


def _virtual_bytes(pid):
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()


def _descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def _change_limit(pid, what, soft):
    """Changes a limit of a process, as far as it has not lowered it for good, and returns what it was. Without CAP_SYS_RESOURCE, as in
    containers, only its own user may do that."""
    try:
        before, hard = resource.prlimit(pid, what)
        resource.prlimit(pid, what, (_within(soft, hard), hard))
    except PermissionError:
        option = {resource.RLIMIT_NOFILE: "nofile", resource.RLIMIT_AS: "as"}[what]
        said = _as_its_user(pid, "--noheadings", "--raw", "--output=SOFT,HARD", f"--{option}")
        before, hard = (-1 if word == "unlimited" else int(word) for word in said.split())
        soft = _within(soft, hard)
        _as_its_user(pid, f"--{option}={'unlimited' if soft < 0 else soft}:")
    return before


def _within(soft, hard):
    return soft if hard < 0 else hard if soft < 0 else min(soft, hard)


def _as_its_user(pid, *arguments):
    """What prlimit(1) says, run by the user of a process."""
    status = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    user, group = int(status["Uid"].split()[0]), int(status["Gid"].split()[0])
    command = ["prlimit", f"--pid={pid}", *arguments]
    # A new worker of this user ends everything that its user left behind, which may be this program.
    for _ in range(TRIES):
        done = subprocess.run(command, user=user, group=group, extra_groups=(), capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout
        if not _started(pid):
            raise ProcessLookupError
    raise OSError(f"prlimit ended with {done.returncode}: {done.stderr.strip()}")


class Faults:
    """One campaign: so many kills, with troubles beside them."""

    def __init__(self, world, load, seed, gap_s):
        self._world, self._load, self._gap_s = world, load, gap_s
        self._chance = random.Random(f"{seed} faults")
        self._record = records.Record(world.folder, records.FAULTS)
        self.kills = dict.fromkeys(KILLS, 0)
        self.troubles = dict.fromkeys(TROUBLES, 0)
        self.killed, self.starved = set(), set()
        """Processes that were killed or got no memory, and those that had no descriptors left for a while."""
        self.errors = []
        """Why a trouble did not come about."""
        self._providers = {}
        self._running = {}

    def run(self, count):
        """Kills so many times. Returns when every trouble is over."""
        while sum(self.kills.values()) < count:
            time.sleep(self._chance.expovariate(1 / self._gap_s))
            self._learn_providers()
            if self._chance.random() < TROUBLES_PER_KILL:
                self._begin_trouble()
            self._kill()
        self.heal()

    def heal(self):
        for thread in self._running.values():
            thread.join()
        self._world.clock.turn(0)

    def _learn_providers(self):
        """Which worker serves which provider, as far as the spooler says so."""
        if self._world.supervisor() and (status := self._world.status()):
            self._providers.update({row["pid"]: row["name"] for row in status["providers"] if row.get("pid")})

    # --- Kills ---

    def _kill(self):
        kind = self._chance.choices(list(KILLS), KILLS.values())[0]
        workers, supervisor = self._world.workers(), self._world.supervisor()
        if supervisor is None or (kind != "supervisor" and not workers):
            return
        worker = self._chance.choice(workers) if workers else None
        targets = {"worker": [worker], "supervisor": [supervisor], "both": self._chance.sample([worker, supervisor], 2)}[kind]
        before = time.time()
        self.killed.update(targets)
        hit = [self._signal(target, signal.SIGKILL) for target in targets]
        if any(hit):
            target = self._providers.get(worker, "?") if kind == "worker" else kind
            self._record.add(what="kill", target=target, at=before, until=time.time(), crash=True, pids=targets)
            self.kills[kind] += 1

    @staticmethod
    def _signal(pid, number):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            return True
        return False

    # --- Troubles ---

    def _begin_trouble(self):
        kind = self._chance.choices(list(TROUBLES), TROUBLES.values())[0]
        if kind in self._running and self._running[kind].is_alive():
            return
        if kind == "clock" and not self._world.clock.turns:
            return
        chance = random.Random(self._chance.random())
        self._running[kind] = threading.Thread(target=self._trouble, args=(kind, chance), daemon=True)
        self._running[kind].start()

    def _trouble(self, kind, chance):
        """One trouble from its beginning to its end; it counts if it hit something."""
        begin = time.time()
        try:
            target = getattr(self, f"_trouble_{kind}")(chance)
        except Exception as error:  # pylint: disable=broad-except  # a trouble that fails silently would be one less to survive
            self.errors.append(f"{kind}: {error!r}")
            return
        if target is not None:
            self.troubles[kind] += 1
            # Whoever gets no memory dies, and that is a crash like any other.
            self._record.add(what=kind, target=target, at=begin, until=time.time(), crash=kind == "memory")

    def _victim(self, chance):
        """The supervisor or one of its workers: its process and who it is."""
        workers, supervisor = self._world.workers(), self._world.supervisor()
        if supervisor is None or not workers or chance.random() < 0.4:
            return supervisor, "supervisor"
        worker = chance.choice(workers)
        return worker, self._providers.get(worker, "?")

    def _trouble_stop(self, chance):
        pid, target = self._victim(chance)
        started = pid and _started(pid)
        if not started or not self._signal(pid, signal.SIGSTOP):
            return None
        time.sleep(chance.uniform(*LASTS_S))
        if _started(pid) == started:
            self._signal(pid, signal.SIGCONT)
        return target

    def _trouble_descriptors(self, chance):
        """A few descriptors are left, or none."""
        pid, target = self._victim(chance)
        self.starved.add(pid)
        return self._limit(pid, resource.RLIMIT_NOFILE, lambda: _descriptors(pid) + chance.randrange(4), chance) and target

    def _trouble_memory(self, chance):
        """A few megabytes are left, or none."""
        pid, target = self._victim(chance)
        self.killed.add(pid)
        return self._limit(pid, resource.RLIMIT_AS, lambda: _virtual_bytes(pid) + chance.randrange(8 << 20), chance) and target

    @staticmethod
    def _limit(pid, what, least, chance):
        """Sets a limit of a running process for a while."""
        started = pid and _started(pid)
        if not started:
            return None
        try:
            before = _change_limit(pid, what, least())
            time.sleep(chance.uniform(*LASTS_S))
            if _started(pid) == started:
                _change_limit(pid, what, before)
        except (ProcessLookupError, FileNotFoundError):
            pass  # it was killed meanwhile
        return True

    def _trouble_clock(self, chance):
        """Set forward or back, by seconds or by days, and back again."""
        offset = chance.choice((-1, 1)) * chance.choice((1, 60, 3600, TURN_S_MAX)) * chance.random()
        self._world.clock.turn(offset)
        time.sleep(chance.uniform(*LASTS_S))
        self._world.clock.turn(0)
        return "clock"

    def _trouble_reload(self, _):
        self._world.configure()
        pid = self._world.supervisor()
        return "supervisor" if pid and self._signal(pid, signal.SIGHUP) else None

    def _trouble_flood(self, chance):
        self._load.flood(chance.randint(*FLOOD), chance)
        return "pickup"

    def _trouble_flush(self, _):
        return "all" if self._world.command("/v1/flush", outbound=True, no_wait=True) else None
