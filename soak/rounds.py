"""Rounds: everybody at once for some seconds, then a crowd, then a look at what is left."""

import os
import random
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from soak.check import Checks, Size
from soak.children import Act, Child, Children
from soak.honest import honest_daemon, honest_requester
from soak.ledger import Count, Ledger
from soak.people import daemon, requester
from soak.place import Place
from soak.syscalls import caller
from soak.vicious import Deed, do, write_in_threads

FIRST_UID = 30_000
HONEST_UID = 29_999
CROWD_UID = 29_998
CALLERS = 4
"""Users who make any call; theirs come after the others'."""
OTHERS = CALLERS + 2
"""Users besides those who ask and answer."""

CROWD = 200
CROWD_SECONDS = 1.5

_PEOPLE_AT_ONCE = 36
_CALLERS_AT_ONCE = 8
_CALLER_SECONDS = 10.0
_STANDSTILL_SECONDS = 10.0
_TICK_SECONDS = 0.002


@dataclass(frozen=True, slots=True)
class Plan:
    """Who takes part.

    people: whether so many users ask and answer, and do these deeds. callers: whether others make
    any call. crowd: whether 200 threads write 1 MiB each after a round.
    """

    users: int
    deeds: tuple[Deed, ...]
    people: bool
    callers: bool
    crowd: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a round was: the server's size after it, and the longest honest exchanges."""

    size: Size
    worst_ms: float
    crowd_ms: float


class Rounds:
    """A device that everybody is let loose on."""

    def __init__(
        self, plan: Plan, place: Place, children: Children, checks: Checks, rng: random.Random
    ) -> None:
        self._plan = plan
        self._place = place
        self._children = children
        self._checks = checks
        self._rng = rng

    def round(self, seconds: float) -> Outcome:
        """Let them loose for some seconds; afterwards everything must be as it was."""
        worst = crowd = 0.0
        if self._plan.people or self._plan.callers:
            worst = self._beside(self._let_loose, seconds)
        if self._plan.crowd and not self._children.faults:
            crowd = self._beside(self._let_crowd_write, CROWD_SECONDS)
        if not self._children.faults:
            self._checks.quiet()
            self._checks.nobody_left()
        self._checks.log()
        return Outcome(self._checks.size(), worst, crowd)

    def _beside(self, rush: Callable[[float, Callable[[], bool]], None], seconds: float) -> float:
        """A rush, and two honest ones beside it; their longest exchange, in milliseconds."""
        self._children.counted[Count.WORST_NS] = 0
        answers, stop_answering = self._start_honest(honest_daemon, self._place.device)
        answers.end = time.monotonic() + _STANDSTILL_SECONDS
        while answers in self._children and not answers.ledger[Count.DAEMONS]:
            self._children.tick()
            time.sleep(_TICK_SECONDS)
        answers.end = float("inf")
        asks, stop_asking = self._start_honest(honest_requester, self._place.request)

        def is_well() -> bool:
            self._children.tick()
            since = asks.ledger[Count.SINCE_NS] if asks in self._children else 0
            if since and time.monotonic_ns() - since > _STANDSTILL_SECONDS * 1e9:
                self._children.tick()  # it may have ended since
                if asks in self._children:
                    self._children.stand_still(asks)
            return not self._children.faults

        try:
            rush(seconds, is_well)
            os.close(stop_asking)
            asks.end = time.monotonic() + _STANDSTILL_SECONDS
            while is_well() and asks in self._children:
                time.sleep(_TICK_SECONDS)
        finally:
            os.close(stop_answering)
        for child in self._children:
            child.end = min(child.end, time.monotonic() + _STANDSTILL_SECONDS)
        self._children.wait()
        return self._children.counted[Count.WORST_NS] / 1e6

    def _start_honest(self, act: Callable[..., None], path: str) -> tuple[Child, int]:
        """Start one of the honest; and a descriptor, at whose closing it stops."""
        reading, writing = os.pipe()

        def goes_on() -> bool:
            return not select.select([reading], [], [], 0)[0]

        def life(rng: random.Random, book: Ledger) -> None:
            os.close(writing)
            act(path, goes_on, rng, book)

        child = self._start(act.__name__, HONEST_UID, life, float("inf"))
        os.close(reading)
        return child, writing

    def _let_loose(self, seconds: float, is_well: Callable[[], bool]) -> None:
        honest = {child.pid for child in self._children}
        end = time.monotonic() + seconds
        while time.monotonic() < end and is_well():
            self._checks.log()
            others = [child for child in self._children if child.pid not in honest]
            callers = sum(child.name == caller.__name__ for child in others)
            if self._plan.people and len(others) - callers < _PEOPLE_AT_ONCE:
                self._start_person()
            if self._plan.callers and callers < _CALLERS_AT_ONCE:
                self._start_caller()
            if others and self._rng.random() < 0.2:
                self._disturb(self._rng.choice(others))
            time.sleep(_TICK_SECONDS)
        for child in self._children:
            if child.pid not in honest:
                child.end = min(child.end, time.monotonic())
        while is_well() and any(child.pid not in honest for child in self._children):
            time.sleep(_TICK_SECONDS)

    def _let_crowd_write(self, seconds: float, is_well: Callable[[], bool]) -> None:
        def write(_rng: random.Random, _book: Ledger) -> None:
            write_in_threads(os.open(self._place.device, os.O_RDWR), CROWD, seconds)

        crowd = self._start("crowd", CROWD_UID, write, seconds + 10)
        while is_well() and crowd in self._children:
            time.sleep(_TICK_SECONDS)

    def _start_person(self) -> None:
        deed = self._rng.choice(self._plan.deeds)
        name, act = self._rng.choices(
            (
                (daemon.__name__, partial(daemon, self._place)),
                (requester.__name__, partial(requester, self._place)),
                (deed.__name__, partial(do, deed, self._place)),
            ),
            (4, 3, 3),
        )[0]
        uid = FIRST_UID + self._rng.randrange(self._plan.users)
        seconds = self._rng.choice((self._rng.uniform(0, 0.3), self._rng.uniform(0, 6)))
        self._start(name, uid, act, seconds)

    def _start_caller(self) -> None:
        uid = FIRST_UID + self._plan.users + self._rng.randrange(CALLERS)
        self._children.counted[Count.PROCESSES] += 1
        self._start(caller.__name__, uid, partial(caller, self._place), _CALLER_SECONDS)

    def _start(self, name: str, uid: int, act: Act, seconds: float) -> Child:
        seed = f"{self._rng.getrandbits(32):08x}"
        return self._children.start(name, uid, act, seed, seconds)

    def _disturb(self, child: Child) -> None:
        """A signal; who is stopped goes on with a later one, or is killed as he is."""
        child.send(self._rng.choice((signal.SIGUSR1, signal.SIGSTOP, signal.SIGCONT)))
