"""Processes of users: forked, bounded in time, killed with all their children; hung ones are told.

A child leads a process group, and whatever it forks stays in it. What is killed has to end: where
it does not, some call on the device keeps it in the kernel.
"""

import ctypes
import os
import random
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from soak.ledger import OUTCOMES, Count, Ledger

Act = Callable[[random.Random, Ledger], None]

END_SECONDS = 15.0
"""How long a killed process may take to end. A busy machine is slow; a hung one never ends."""

_PR_SET_DUMPABLE = 4  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36
_FAULT_MAX = 4000  # a pipe takes it whole: less than PIPE_BUF

_libc = ctypes.CDLL(None)


@dataclass(eq=False)
class Child:
    """A process group.

    end: when it is killed, on the monotonic clock. is_done: its leader has come to its end.
    """

    pid: int
    name: str
    end: float
    ledger: Ledger
    is_killed: bool = field(default=False, init=False)
    is_done: bool = field(default=False, init=False)

    def send(self, number: signal.Signals) -> None:
        """Signal all of the group; nothing where it has ended."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)


class Children:
    """All processes that were started and have not ended.

    counted: what those that have ended counted. faults: sentences about what was wrong. is_stuck:
    whether a killed process has not ended.
    """

    def __init__(self) -> None:
        # Orphans become ours: nobody's child escapes.
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.counted: Counter[Count] = Counter()
        self.faults: list[str] = []
        self.is_stuck = False
        self._running: dict[int, Child] = {}
        self._read_fault, self._write_fault = os.pipe()
        os.set_blocking(self._read_fault, False)

    def __iter__(self) -> Iterator[Child]:
        return iter(list(self._running.values()))

    def __len__(self) -> int:
        return len(self._running)

    def start(self, name: str, uid: int, act: Act, seed: str, seconds: float) -> Child:
        """Fork a process that becomes a user and acts; it is killed after so many seconds."""
        ledger = Ledger()
        pid = os.fork()
        if pid == 0:
            self._act(f"{name} of user {uid} (seed {seed})", uid, act, seed, ledger)
        with suppress(OSError):  # the child has done it, and has perhaps ended since
            os.setpgid(pid, pid)
        child = self._running[pid] = Child(pid, name, time.monotonic() + seconds, ledger)
        return child

    def tick(self) -> None:
        """Collect those that have ended, kill those whose time is over, hear what is wrong."""
        with suppress(BlockingIOError):
            said = os.read(self._read_fault, 1 << 16).decode(errors="replace")
            self.faults += said.splitlines()
        for child in self:
            if self._has_ended(child):
                del self._running[child.pid]
                self._count(child)
            elif time.monotonic() > child.end:
                self._kill(child)

    def stand_still(self, child: Child) -> None:
        """Somebody hangs: say where."""
        self.is_stuck = True
        self.faults += [
            f"{child.name} does not come to an end: {what}" for what in describe_group(child.pid)
        ]

    def wait(self) -> None:
        """Wait until all have ended, each in its time."""
        while self._running and not self.is_stuck:
            self.tick()
            time.sleep(0.005)
        self.tick()

    def kill(self) -> None:
        """Kill all, without a look at how they end: after a failure."""
        for child in self:
            child.send(signal.SIGKILL)

    def _act(self, name: str, uid: int, act: Act, seed: str, ledger: Ledger) -> None:
        """The child's life."""
        try:
            os.setpgid(0, 0)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            become(uid)
            act(random.Random(seed), ledger)
        except BaseException as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{os.path.basename(place.filename)}:{place.lineno}"
            said = f"{name}: {type(error).__name__}: {error} ({where})"
            os.write(self._write_fault, said.replace("\n", " ").encode()[:_FAULT_MAX] + b"\n")
            os._exit(1)
        finally:
            os._exit(0)

    @staticmethod
    def _has_ended(child: Child) -> bool:
        """Whether no process of the group is left."""
        try:
            while True:
                pid, status = os.waitpid(-child.pid, os.WNOHANG)
                if pid == 0:
                    return False
                if pid == child.pid:
                    child.is_done = status == 0
                    # What it has left behind has no reason to live.
                    child.end = min(child.end, time.monotonic())
        except ChildProcessError:
            return True

    def _kill(self, child: Child) -> None:
        child.send(signal.SIGKILL)  # again and again: one may just have been forked
        if not child.is_killed:
            child.is_killed = True
            child.end = time.monotonic()
        elif time.monotonic() > child.end + END_SECONDS:
            self.stand_still(child)
            child.end = float("inf")

    def _count(self, child: Child) -> None:
        counted = child.ledger.close()
        missing = counted[Count.BEGUN] - sum(counted[outcome] for outcome in OUTCOMES)
        if missing < 0 or (missing and child.is_done):
            self.faults.append(f"{child.name}: {missing} requests have no outcome: {+counted}")
        counted[Count.GONE] += missing
        worst = max(self.counted[Count.WORST_NS], counted[Count.WORST_NS])
        self.counted += counted
        self.counted[Count.WORST_NS] = worst


def become(uid: int) -> None:
    """Become a user for good, one who may look at himself and make namespaces."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


def describe_group(group: int) -> list[str]:
    """What each process of a group is doing, for the report."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/task/[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                found.append(describe(stat.parent, fields[0]))
    return found or ["it is gone from /proc"]


def describe(task: Path, state: str) -> str:
    """Where a thread is: its state, its system call, where in the kernel it waits."""
    known = []
    for name in ("syscall", "wchan", "stack"):
        with suppress(OSError):
            known.append(f"{name} {' '.join((task / name).read_text().split())}")
    return f"thread {task.name} is in state {state}; {'; '.join(known)}"
