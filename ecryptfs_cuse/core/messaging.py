"""Daemons, message contexts and the requests that use them: messaging.c.

Theory of operation
===================

Everything that changes a message context's state or a daemon's flags is in this file.

A *daemon* is registered for an identity (effective uid, user namespace) while its device is open;
an identity has one daemon at most. It has an *out queue*, first in, first out.

A *message context* is a place in a table of fixed length, and its index never changes:

    FREE     --send_message-->       PENDING   counter set, message queued on the daemon
    PENDING  --process_response-->   DONE      the response is there
    DONE     --(the requester)-->    FREE      the requester has taken it
    PENDING  --time_out-->           FREE      the requester has given up
    PENDING  --exorcise_daemon-->    FREE      only if the message was still queued

A requester is awake at once here, so DONE lasts for the length of one call. A context that is freed
goes to the head of the free list: the one freed last is used next. The *counter* counts accepted
requests, all users together, in 32 bits, from 1; with the index it says which request a response
answers.

A *request* outlives its context in one case: the daemon closes with the message still queued. Then
the context is free at once, and the requester waits for its time-out all the same. When that comes
the kernel frees the context once more: if nobody uses it, it moves to the head of the free list
again. An abandoned request has nobody who waits, and is over when its daemon closes.

A *queue entry* outlives its request where the message was answered or given up before the daemon
read it. What is left to read is a packet without a message: a *stale* entry. In the kernel the
entry *is* the context, with two effects. A close frees the context of everything that is queued, in
order, of stale entries for the second time: each moves to the head of the free list. So it is here.
And the next request in a context whose entry is stale corrupts the queue. Here it has an entry of
its own; the stale one stays readable, and a daemon keeps one of this kind at most, the latest. So
what poll has announced is still there, and there are never more entries than contexts and daemons
together.

Nor can requests pile up. One that somebody waits for is held by whoever waits; one that is
abandoned has a context, or is over. ``contexts_per_user`` limits the contexts of one effective uid,
in all its user namespaces together, because a user may make any number of those.

A daemon's flags:

    MISCDEV_OPEN  from open to release
    IN_READ       a reader is inside read; cleared by *any* reader that returns, also by one that
                  returns at once because of this flag, so that every second reader blocks
    IN_POLL       inside poll, which here is over within the call
    ZOMBIE        the device is being shut down: reads return nothing from now on
"""

import errno
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum, IntEnum

from ecryptfs_cuse.core.errors import DeviceError
from ecryptfs_cuse.wire.packet import Message, PacketType, build_message

COUNTER_MODULUS = 1 << 32


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose daemon it is. euid: the effective uid. user_namespace: its inode number."""

    euid: int
    user_namespace: int


class DaemonFlag(IntEnum):
    """struct ecryptfs_daemon, flags (ECRYPTFS_DAEMON_*): bits; together they are a plain int."""

    IN_READ = 1
    IN_POLL = 2
    ZOMBIE = 4
    MISCDEV_OPEN = 8


class ContextState(Enum):
    """struct ecryptfs_msg_ctx, state (ECRYPTFS_MSG_CTX_STATE_*)."""

    FREE = 1
    PENDING = 2
    DONE = 3


class Request:
    """A requester, from send_message until it has its answer or none will come."""

    __slots__ = ("_finished", "_result", "context", "counter", "identity", "is_finished")

    def __init__(
        self, identity: Identity, context: "MessageContext", finished: Callable[[], None]
    ) -> None:
        self.identity = identity
        self.counter = context.counter
        self.context: MessageContext | None = context
        self.is_finished = False
        self._result: bytes | DeviceError | None = None
        self._finished: Callable[[], None] | None = finished

    def take(self) -> bytes:
        """The response's data, once. Raises DeviceError: ENOMSG after a time-out."""
        result, self._result = self._result, None
        if isinstance(result, DeviceError):
            raise result
        if result is None:
            raise RuntimeError("there is no response to take")
        return result

    @property
    def is_abandoned(self) -> bool:
        """Whether it goes on though nobody waits for its end."""
        return self._finished is None and not self.is_finished

    def forget(self) -> None:
        """Tell nobody of its end, and keep no answer."""
        self._finished = self._result = None

    def finish(self, result: bytes | DeviceError) -> None:
        """Wake the requester with what it waited for."""
        self.is_finished = True
        finished, self._finished = self._finished, None
        if finished is not None:
            self._result = result
            finished()


@dataclass(slots=True, eq=False)
class QueueEntry:
    """What a daemon's read will return: a header and, while somebody wants it, a message.

    context: whose entry it is; None once a later request uses that context.
    """

    daemon: "Daemon" = field(repr=False)
    context: "MessageContext | None" = field(repr=False)
    counter: int
    body: bytes | None = field(repr=False)
    type: PacketType = PacketType.REQUEST


class MessageContext:
    """struct ecryptfs_msg_ctx: a place in the table. ``entry`` is what is queued of it."""

    __slots__ = ("counter", "entry", "index", "request", "state")

    def __init__(self, index: int) -> None:
        self.index = index
        self.counter = 0
        self.state = ContextState.FREE
        self.request: Request | None = None
        self.entry: QueueEntry | None = None


class Daemon:
    """struct ecryptfs_daemon: one open device."""

    __slots__ = ("_orphan", "flags", "identity", "out_queue", "wake")

    def __init__(self, identity: Identity, wake: Callable[[], None]) -> None:
        self.identity = identity
        self.wake = wake
        self.flags: int = DaemonFlag.MISCDEV_OPEN
        # Ordered by arrival; entries go from anywhere in it.
        self.out_queue: OrderedDict[QueueEntry, None] = OrderedDict()
        self._orphan: QueueEntry | None = None  # a stale entry whose context is in use again

    def enqueue(self, entry: QueueEntry) -> None:
        """Put what is to be read behind the rest."""
        if entry.context is not None:
            entry.context.entry = entry
        self.out_queue[entry] = None

    def dequeue(self) -> QueueEntry:
        """Take the entry that is next: it was read, or nobody will read it."""
        entry, _ = self.out_queue.popitem(last=False)
        entry.body = None
        if entry.context is not None:
            entry.context.entry = None
        else:
            self._orphan = None
        return entry

    def disown(self, entry: QueueEntry) -> None:
        """A later request uses the context of this stale entry: keep it, but one such alone."""
        if self._orphan is not None:
            del self.out_queue[self._orphan]
        self._orphan = entry
        entry.context = None

    def begin_read(self) -> bool:
        """Enter read: False where a reader is inside already, or the daemon is a zombie."""
        if self.flags & (DaemonFlag.IN_READ | DaemonFlag.ZOMBIE):
            return False
        self.flags |= DaemonFlag.IN_READ
        return True

    def end_read(self) -> None:
        """Leave read, having been let in or not."""
        self.flags &= ~DaemonFlag.IN_READ

    def begin_poll(self) -> bool:
        """Enter poll: False where a reader or poller is inside, or the daemon is a zombie."""
        if self.flags & (DaemonFlag.IN_READ | DaemonFlag.IN_POLL | DaemonFlag.ZOMBIE):
            return False
        self.flags |= DaemonFlag.IN_POLL
        return True

    def end_poll(self) -> None:
        """Leave poll, having been let in or not."""
        self.flags &= ~DaemonFlag.IN_POLL


@dataclass
class Totals:
    """What happened since the start, in numbers."""

    requests: int = 0
    requests_without_daemon: int = 0
    requests_without_context: int = 0
    responses: int = 0
    responses_refused: int = 0
    timeouts: int = 0
    messages_dropped: int = 0


class Messaging:
    """The registry of daemons and the table of message contexts.

    message_buf_len: how many contexts there are; contexts_per_user: how many of them one effective
    uid may use, None for all. Raises ValueError for a limit below 1.
    """

    def __init__(self, message_buf_len: int, contexts_per_user: int | None = None) -> None:
        if contexts_per_user is not None and contexts_per_user < 1:
            raise ValueError(f"contexts_per_user is 1 or more, not {contexts_per_user}")
        self.totals = Totals()
        self.counter = 0
        self.contexts = [MessageContext(index) for index in range(message_buf_len)]
        self.contexts_per_user = contexts_per_user
        self._free = OrderedDict.fromkeys(self.contexts)
        self._used_by: Counter[int] = Counter()  # effective uid: how many contexts
        self._daemons: dict[Identity, Daemon] = {}
        # They wait for their time-out without a context; each with the one that it had.
        self._dropped: dict[Request, MessageContext] = {}
        self._is_shut_down = False

    @property
    def daemons(self) -> Iterator[Daemon]:
        """The registered daemons, in the order in which they came."""
        return iter(self._daemons.values())

    @property
    def registered(self) -> int:
        """How many daemons there are."""
        return len(self._daemons)

    @property
    def free_contexts(self) -> int:
        """How many requests would be accepted now, if they were of users within their limit."""
        return len(self._free)

    def spawn_daemon(self, identity: Identity, wake: Callable[[], None]) -> Daemon:
        """Register a daemon; ``wake`` is called when its read or poll may go on.

        Raises DeviceError EINVAL where the identity has one (ecryptfs_miscdev_open), ENODEV after
        shut_down.
        """
        if self._is_shut_down:
            raise DeviceError(errno.ENODEV)
        if identity in self._daemons:
            raise DeviceError(errno.EINVAL, "this user has a daemon already")
        daemon = self._daemons[identity] = Daemon(identity, wake)
        return daemon

    def exorcise_daemon(self, daemon: Daemon) -> None:
        """The device is closed: forget the daemon and what it has not read."""
        daemon.flags &= ~DaemonFlag.MISCDEV_OPEN
        self.totals.messages_dropped += len(daemon.out_queue)
        while daemon.out_queue:
            context = daemon.dequeue().context
            if context is None:
                continue
            request = context.request
            self._free_context(context)
            if request is not None and request.is_abandoned:
                request.is_finished = True
            elif request is not None:
                self._dropped[request] = context
        del self._daemons[daemon.identity]

    def send_message(
        self, identity: Identity, data: bytes, finished: Callable[[], None]
    ) -> Request:
        """Queue a request for the daemon of ``identity``; ``finished`` is called once it is over.

        Raises BuildError where the data are too long for a message, DeviceError ENOTCONN where the
        identity has no daemon, ENOMEM where no context is free (ecryptfs_send_message_locked), or
        where the user has as many as one may have.
        """
        if self._is_shut_down:
            raise DeviceError(errno.ENODEV)
        daemon = self._daemons.get(identity)
        if daemon is None:
            self.totals.requests_without_daemon += 1
            raise DeviceError(errno.ENOTCONN, "this user has no daemon")
        context = self._next_free(identity.euid)
        body = build_message(Message(context.index, data))
        del self._free[context]
        self._used_by[identity.euid] += 1
        self.counter = (self.counter + 1) % COUNTER_MODULUS
        self.totals.requests += 1
        context.state = ContextState.PENDING
        context.counter = self.counter
        request = context.request = Request(identity, context, finished)
        if context.entry is not None:
            context.entry.daemon.disown(context.entry)
        daemon.enqueue(QueueEntry(daemon, context, context.counter, body))
        daemon.wake()
        return request

    def _next_free(self, euid: int) -> MessageContext:
        why = None
        if not self._free:
            why = "every message context is in use"
        elif self.contexts_per_user is not None and self._used_by[euid] >= self.contexts_per_user:
            why = "this user has as many requests under way as one may"
        if why is not None:
            self.totals.requests_without_context += 1
            raise DeviceError(errno.ENOMEM, why)
        return next(iter(self._free))

    def abandon(self, request: Request) -> None:
        """Nobody waits for the request any more. For the daemon nothing changes."""
        request.forget()
        if self._dropped.pop(request, None) is not None:
            request.is_finished = True

    def process_response(self, daemon: Daemon, counter: int, message: Message) -> None:
        """A daemon answers; its requester is woken.

        Raises DeviceError EINVAL, checking in the kernel's order (ecryptfs_process_response): the
        index is in the table, the context is pending, the counter is its own; and then, which the
        kernel does not check, that the request is of this daemon's identity.
        """
        try:
            context, request = self._answerable(daemon, counter, message.index)
        except DeviceError:
            self.totals.responses_refused += 1
            raise
        self.totals.responses += 1
        context.state = ContextState.DONE
        self._free_context(context)
        request.finish(message.data)

    def _answerable(
        self, daemon: Daemon, counter: int, index: int
    ) -> tuple[MessageContext, Request]:
        if index >= len(self.contexts):
            raise DeviceError(errno.EINVAL, "there is no message context of this index")
        context = self.contexts[index]
        if context.state is not ContextState.PENDING or context.request is None:
            raise DeviceError(errno.EINVAL, "the message context is not waiting for a response")
        if context.counter != counter:
            raise DeviceError(errno.EINVAL, "the counter is not the message context's")
        if context.request.identity != daemon.identity:
            raise DeviceError(errno.EINVAL, "the request is another user's")
        return context, context.request

    def time_out(self, request: Request) -> None:
        """The request has waited long enough (ecryptfs_wait_for_response): it ends in ENOMSG.

        Does nothing where it is finished.
        """
        if not request.is_finished:
            self.totals.timeouts += 1
            self._fail(request, DeviceError(errno.ENOMSG, "the daemon did not answer in time"))

    def shut_down(self) -> None:
        """Let nobody wait any more: daemons become zombies, requests fail with ESHUTDOWN.

        There is no such thing in the kernel, whose module cannot go while the device is open.
        """
        self._is_shut_down = True
        for daemon in list(self._daemons.values()):
            daemon.flags |= DaemonFlag.ZOMBIE
            daemon.wake()
        waiting = [context.request for context in self.contexts if context.request is not None]
        for request in (*waiting, *self._dropped):
            self._fail(request, DeviceError(errno.ESHUTDOWN, "the device is gone"))

    def _fail(self, request: Request, error: DeviceError) -> None:
        context = self._dropped.pop(request, request.context)
        # The context that a dropped request had may be another's now, who is to keep it.
        if context is not None and context.request in (request, None):
            self._free_context(context)
        request.finish(error)

    def _free_context(self, context: MessageContext) -> None:
        """ecryptfs_msg_ctx_alloc_to_free, for free ones too; what is queued loses its message."""
        request, context.request = context.request, None
        if request is not None:
            request.context = None
            self._used_by[request.identity.euid] -= 1
            if not self._used_by[request.identity.euid]:
                del self._used_by[request.identity.euid]
        if context.entry is not None:
            context.entry.body = None
        context.state = ContextState.FREE
        self._free[context] = None
        self._free.move_to_end(context, last=False)
