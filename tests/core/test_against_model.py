"""Anything in any order: the emulated kernel side against a model of its rules.

The model is as naive as it can be: a list of free indexes, a list of requests, and for each user
a queue and a flag. It knows nothing of states, and it never looks into what it is compared with.
"""

import errno
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ecryptfs_cuse.core.errors import DeviceError
from ecryptfs_cuse.core.messaging import (
    ContextState,
    Daemon,
    Identity,
    MessageContext,
    QueueEntry,
    Request,
)
from tests.core.emulation import (
    OTHER_NAMESPACE,
    OTHER_USER,
    USER,
    Device,
    Seen,
    refused,
    response,
    seen,
)
from tests.kept import kept

TABLE = 3

identities = st.sampled_from((USER, OTHER_USER, OTHER_NAMESPACE))
data = st.binary(max_size=3) | st.just(bytes(200))
counts = st.sampled_from((0, 4, 5, 13, 14, 15, 4096))


@dataclass
class Asked:
    """A request in the model. holds: it has a context. waits: it is not over.

    disowned: it is over, unread, and its index another's. dropped: its daemon closed before.
    """

    real: Request
    identity: Identity
    counter: int
    index: int
    data: bytes
    holds: bool = True
    waits: bool = True
    abandoned: bool = False
    disowned: bool = False
    dropped: bool = False
    result: bytes | int | None = None


@dataclass
class Opened:
    """A daemon in the model."""

    real: Daemon
    queue: list[Asked] = field(default_factory=list)
    in_read: bool = False
    blocked: list[int] = field(default_factory=list)  # the counts of the readers that wait


class AgainstModel(RuleBasedStateMachine):
    """Each rule does the same to both, and compares what comes out."""

    @initialize(contexts_per_user=st.sampled_from((None, 2)))
    def begin(self, contexts_per_user: int | None) -> None:
        self.device = Device(TABLE, contexts_per_user)
        self.most_of_a_user = TABLE if contexts_per_user is None else contexts_per_user
        self.daemons: dict[Identity, Opened] = {}
        self.requests: list[Asked] = []
        self.free = list(range(TABLE))
        self.told: list[int] = []

    def finish(self, asked: Asked, result: bytes | int) -> None:
        asked.waits = False
        if not asked.abandoned:
            asked.result = result
            self.told.append(asked.counter)
        self.let_go(asked)

    def let_go(self, asked: Asked) -> None:
        if asked.holds:
            asked.holds = False
            self.free.insert(0, asked.index)

    def free_once_more(self, index: int) -> None:
        if index in self.free:
            self.free.remove(index)
            self.free.insert(0, index)

    def disown(self, index: int) -> None:
        """Whoever is queued with this index keeps its packet, but no daemon has two such."""
        for opened in self.daemons.values():
            if any(asked.index == index and not asked.disowned for asked in opened.queue):
                opened.queue = [asked for asked in opened.queue if not asked.disowned]
                for asked in opened.queue:
                    asked.disowned = asked.index == index

    @rule(identity=identities)
    def open(self, identity: Identity) -> None:
        if identity in self.daemons:
            with refused(errno.EINVAL):
                self.device.open(identity)
        else:
            self.daemons[identity] = Opened(self.device.open(identity))

    @rule(identity=identities)
    def close(self, identity: Identity) -> None:
        opened = self.daemons.get(identity)
        if opened is None or opened.blocked:
            return  # the file stays open as long as somebody is inside
        self.device.close(self.daemons.pop(identity).real)
        for asked in opened.queue:
            if asked.holds:
                self.let_go(asked)
                asked.dropped = True
                asked.waits = not asked.abandoned
            elif not asked.disowned:
                self.free_once_more(asked.index)

    @rule(identity=identities, data=data)
    def send(self, identity: Identity, data: bytes) -> None:
        of_user = [
            asked for asked in self.requests if asked.holds and asked.identity.euid == identity.euid
        ]
        is_full = not self.free or len(of_user) >= self.most_of_a_user
        if identity not in self.daemons or is_full:
            missing = errno.ENOMEM if identity in self.daemons else errno.ENOTCONN
            with refused(missing):
                self.device.send(data, identity)
            return
        woken = len(self.device.woken)
        request = self.device.send(data, identity)
        asked = Asked(request, identity, len(self.requests) + 1, self.free.pop(0), data)
        self.disown(asked.index)
        assert self.device.woken[woken:] == [identity]
        self.requests.append(asked)
        self.daemons[identity].queue.append(asked)

    def returned(self, opened: Opened, octets: bytes | None, count: int) -> None:
        """Compare what a reader that is inside got; it leaves unless it goes on waiting."""
        if not opened.queue:
            assert octets is None
            opened.blocked.append(count)
            return
        opened.in_read = False
        asked = opened.queue[0]
        body = 8 + len(asked.data)
        size = 5 + (1 if body < 192 else 2) + body if asked.holds else 5
        if count < size:
            assert octets == b""
            return
        del opened.queue[0]
        whole = Seen(asked.counter, asked.index, asked.data)
        assert seen(octets) == (whole if asked.holds else Seen(asked.counter))

    @rule(identity=identities, count=counts)
    def read(self, identity: Identity, count: int) -> None:
        if (opened := self.daemons.get(identity)) is None:
            return
        octets = self.device.read(opened.real, count)
        if opened.in_read:
            opened.in_read = False
            assert octets == b""
        else:
            opened.in_read = True
            self.returned(opened, octets, count)

    @rule(identity=identities, which=st.integers(0, 3))
    def resume(self, identity: Identity, which: int) -> None:
        if (opened := self.daemons.get(identity)) is not None and opened.blocked:
            count = opened.blocked.pop(which % len(opened.blocked))
            self.returned(opened, self.device.resume(opened.real, count), count)

    @rule(identity=identities, which=st.integers(0, 3))
    def interrupt(self, identity: Identity, which: int) -> None:
        if (opened := self.daemons.get(identity)) is not None and opened.blocked:
            del opened.blocked[which % len(opened.blocked)]
            opened.in_read = False
            assert self.device.interrupt(opened.real) == b""

    @rule(identity=identities)
    def poll(self, identity: Identity) -> None:
        if (opened := self.daemons.get(identity)) is not None:
            expected = (0, False) if opened.in_read else (0x41 if opened.queue else 0, True)
            assert self.device.poll(opened.real) == expected

    @precondition(lambda self: self.requests and self.daemons)
    @rule(draw=st.data(), data=data)
    def respond(self, draw: st.DataObject, data: bytes) -> None:
        """Answer a request that may be over, perhaps with a wrong index, counter or daemon."""
        asked = draw.draw(st.sampled_from(self.requests[-5:]))
        identity = draw.draw(st.sampled_from((asked.identity, *self.daemons)))
        counter = asked.counter + draw.draw(st.sampled_from((0, 0, 0, 1, -1)))
        index = asked.index + draw.draw(st.sampled_from((0, 0, 0, 1, TABLE)))
        if identity not in self.daemons:
            return
        meant = [
            other
            for other in self.requests
            if other.holds and (other.index, other.counter) == (index, counter)
        ]
        octets = response(counter, index, data)
        if meant and meant[0].identity == identity:
            assert self.device.write(self.daemons[identity].real, octets) == len(octets)
            self.finish(meant[0], data)
        else:
            with refused(errno.EINVAL):
                self.device.write(self.daemons[identity].real, octets)

    @precondition(lambda self: self.requests)
    @rule(draw=st.data())
    def time_out(self, draw: st.DataObject) -> None:
        asked = draw.draw(st.sampled_from(self.requests[-5:]))
        self.device.messaging.time_out(asked.real)
        if asked.waits:
            if asked.dropped:
                self.free_once_more(asked.index)
            self.finish(asked, errno.ENOMSG)

    @precondition(lambda self: self.requests)
    @rule(draw=st.data())
    def abandon(self, draw: st.DataObject) -> None:
        asked = draw.draw(st.sampled_from(self.requests[-5:]))
        self.device.messaging.abandon(asked.real)
        asked.abandoned = True
        asked.result = None
        asked.waits = asked.waits and not asked.dropped

    @precondition(lambda self: any(asked.result is not None for asked in self.requests))
    @rule(draw=st.data())
    def take(self, draw: st.DataObject) -> None:
        answered = [asked for asked in self.requests if asked.result is not None]
        asked = draw.draw(st.sampled_from(answered))
        try:
            taken: bytes | int | None = asked.real.take()
        except DeviceError as error:
            taken = error.errno
        assert taken == asked.result
        asked.result = None

    @invariant()
    def every_requester_was_told_once_and_in_order(self) -> None:
        assert self.device.finished == self.told

    @invariant()
    def requests_are_over_exactly_when_the_model_says_so(self) -> None:
        assert [asked.real.is_finished for asked in self.requests] == [
            not asked.waits for asked in self.requests
        ]

    @invariant()
    def every_context_is_free_or_pending_and_pending_ones_have_their_request(self) -> None:
        contexts = self.device.messaging.contexts
        pending = {asked.index: asked.real for asked in self.requests if asked.holds}
        assert {c.index: c.request for c in contexts if c.state is ContextState.PENDING} == pending
        free = [c for c in contexts if c.state is ContextState.FREE]
        assert all(context.request is None for context in free)
        assert len(free) + len(pending) == TABLE
        assert self.device.messaging.free_contexts == len(free) == len(self.free)

    @invariant()
    def the_registered_daemons_are_those_that_are_open(self) -> None:
        registered = [daemon.identity for daemon in self.device.messaging.daemons]
        assert registered == list(self.daemons)

    @invariant()
    def messages_are_kept_of_the_requests_that_are_queued_alone(self) -> None:
        kept = [
            entry.counter
            for opened in self.daemons.values()
            for entry in opened.real.out_queue
            if entry.body is not None
        ]
        queued = [asked for opened in self.daemons.values() for asked in opened.queue]
        assert kept == [asked.counter for asked in queued if asked.holds]

    @invariant()
    def what_is_kept_is_bounded_by_contexts_daemons_and_requesters_that_wait(self) -> None:
        what = kept(self.device.messaging)
        waiting = [asked for asked in self.requests if asked.waits and not asked.abandoned]
        assert what[MessageContext] == TABLE
        assert what[Daemon] == len(self.daemons)
        assert what[QueueEntry] <= TABLE + len(self.daemons)
        assert what[Request] <= TABLE + len(waiting)
        assert what[bytes] <= TABLE

    def teardown(self) -> None:
        """Let every request end: the table is whole again."""
        if not hasattr(self, "device"):
            return
        for asked in self.requests:
            self.device.messaging.time_out(asked.real)
        assert self.device.messaging.free_contexts == TABLE


AgainstModel.TestCase.settings = settings(max_examples=100, stateful_step_count=50)
TestAgainstModel: Any = AgainstModel.TestCase
