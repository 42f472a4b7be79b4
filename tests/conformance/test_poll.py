"""poll(2), select(2) and epoll(7): what they report, and what wakes them."""

import os
import select

from tests.conformance.case import case, cases
from tests.conformance.daemon import READABLE, Daemon, Question
from tests.conformance.system import System, Value

_EVERYTHING = 0xFFFF
_LONG = 5.0


def _ready(daemon: Daemon) -> Value:
    """What poll, select, and epoll by level and by edge report at once."""
    events = READABLE | select.EPOLLOUT | select.EPOLLPRI
    level = daemon.client.call("epoll_open", daemon.descriptor, events)
    edge = daemon.client.call("epoll_open", daemon.descriptor, events | select.EPOLLET)
    found = daemon.poll(), daemon.call("select_ready", 0.0)
    return *found, *(daemon.client.call("epoll_wait", each, 0.0) for each in (level, edge))


_NOT_READY = 0, "", 0, 0
_READY = READABLE, "r", READABLE, READABLE


@cases(
    case("opened for both, it is ready for nothing", _NOT_READY, os.O_RDWR),
    case("opened for reading, it is ready for nothing", _NOT_READY, os.O_RDONLY),
    case("opened for writing, it is ready for nothing", _NOT_READY, os.O_WRONLY),
    case("opened without blocking, too", _NOT_READY, os.O_RDWR | os.O_NONBLOCK),
)
def test_nothing_to_read(system: System, flags: int) -> Value:
    with system.daemon(flags=flags) as daemon:
        return _ready(daemon)


@cases(
    case("opened for both, it is readable", _READY, os.O_RDWR),
    case("opened for reading, it is readable", _READY, os.O_RDONLY),
    case("opened for writing, it is readable too", _READY, os.O_WRONLY),
)
def test_queued(system: System, flags: int) -> Value:
    with system.daemon(flags=flags) as daemon:
        asked = system.requester().create()
        daemon.poll(seconds=_LONG)
        found = _ready(daemon)
        if flags == os.O_WRONLY:
            assert asked.outcome == "EIO"
        else:
            question = daemon.question()
            daemon.close()
            with system.daemon() as successor:
                successor.answer(question)
    return found


@cases(
    case("O_PATH: it is no open file", (select.POLLNVAL, "rwx", "EBADF")),
)
def test_path(system: System) -> Value:
    daemon = system.daemon(flags=os.O_PATH)
    return (
        daemon.poll(),
        daemon.call("select_ready", 0.0),
        daemon.call("epoll_open", READABLE),
    )


@cases(
    *(
        case(f"asked for {events:#x}, it reports {found:#x}", found, events)
        for events, found in (
            (_EVERYTHING, READABLE),
            (select.POLLIN, select.POLLIN),
            (select.POLLRDNORM, select.POLLRDNORM),
            (select.POLLOUT, 0),
            (select.POLLPRI, 0),
            (0, 0),
            (select.POLLRDHUP, 0),
        )
    )
)
def test_mask(system: System, events: int) -> Value:
    with system.daemon() as daemon:
        system.requester().create()
        daemon.poll(seconds=_LONG)
        found = daemon.poll(events)
        daemon.answer(daemon.question())
    return found


@cases(case("it is readable until the last message is read", [READABLE, READABLE, READABLE, 0]))
def test_several_messages(system: System) -> Value:
    with system.daemon() as daemon:
        for _ in range(3):
            system.requester().create().wait_sent()
        found, questions = [], []
        for _ in range(3):
            found.append(daemon.poll())
            questions.append(daemon.question())
        found.append(daemon.poll())
        for question in questions:
            daemon.answer(question)
    return found


@cases(case("reads in vain leave it readable", READABLE))
def test_after_small_reads(system: System) -> Value:
    with system.daemon() as daemon:
        system.requester().create()
        daemon.poll(seconds=_LONG)
        assert daemon.read(1) == daemon.read(51) == b""
        found = daemon.poll()
        daemon.answer(daemon.question())
    return found


@cases(case("a message that timed out unread leaves it readable", (_READY, 5, _NOT_READY)))
def test_after_a_time_out(system: System) -> Value:
    with system.daemon() as daemon:
        assert system.requester().create().outcome == "EIO"
        found = _ready(daemon)
        left = daemon.read()
        assert isinstance(left, bytes)
        return found, len(left), _ready(daemon)


@cases(case("a message that was answered unread too", (_READY, 5, _NOT_READY)))
def test_after_an_answer(system: System) -> Value:
    with system.daemon() as daemon:
        requester = system.requester()
        first = requester.create()
        question = daemon.question()
        daemon.answer(question)
        assert first.outcome == "OK"
        asked = requester.create()
        daemon.poll(seconds=_LONG)
        guess = Question(question.counter + 1, question.index, question.data)
        daemon.answer(guess)
        assert asked.outcome == "OK"
        found = _ready(daemon)
        left = daemon.read()
        assert isinstance(left, bytes)
        return found, len(left), _ready(daemon)


@cases(
    case("poll is woken by a message", select.POLLIN, "poll", select.POLLIN, _LONG),
    case("poll for everything is woken", READABLE, "poll", _EVERYTHING, _LONG),
    case("select is woken by a message", "r", "select_ready", _LONG),
    case("poll for writing is not", 0, "poll", select.POLLOUT, 0.3),
)
def test_woken(system: System, name: str, *arguments: object) -> Value:
    requester = system.requester()
    with system.daemon() as daemon:
        waiting = daemon.client.start(name, daemon.descriptor, *arguments)
        waiting.wait_blocked()
        requester.create()
        found = waiting.result()
        daemon.answer(daemon.question())
    return found


@cases(case("all who wait are woken", [READABLE] * 3))
def test_all_are_woken(system: System) -> Value:
    requester = system.requester()
    with system.daemon() as daemon:
        several = [
            daemon.client.start("poll", daemon.descriptor, _EVERYTHING, _LONG) for _ in range(3)
        ]
        for waiting in several:
            waiting.wait_blocked()
        requester.create()
        found = [waiting.result() for waiting in several]
        daemon.answer(daemon.question())
    return found


_LEVEL = 0
_EDGE = select.EPOLLET
_ONCE = select.EPOLLONESHOT


@cases(
    case("by level: until it is read", [0, READABLE, READABLE, 0, READABLE, 0], _LEVEL),
    case("by edge: once for each message", [0, READABLE, 0, 0, READABLE, 0], _EDGE),
    case("once: only the first message", [0, READABLE, 0, 0, 0, 0], _ONCE),
)
def test_epoll(system: System, kind: int) -> Value:
    requester = system.requester()
    with system.daemon() as daemon:
        epoll = daemon.client.call("epoll_open", daemon.descriptor, READABLE | kind)
        found = [daemon.client.call("epoll_wait", epoll, 0.05)]
        for _ in range(2):
            requester.create()
            daemon.poll(seconds=_LONG)
            found.append(daemon.client.call("epoll_wait", epoll, 0.05))
            if len(found) == 2:
                found.append(daemon.client.call("epoll_wait", epoll, 0.05))
            daemon.answer(daemon.question())
            found.append(daemon.client.call("epoll_wait", epoll, 0.05))
    return found


@cases(
    case("by level: it waits, and is woken", READABLE, _LEVEL),
    case("by edge: it waits, and is woken", READABLE, _EDGE),
)
def test_epoll_is_woken(system: System, kind: int) -> Value:
    requester = system.requester()
    with system.daemon() as daemon:
        epoll = daemon.client.call("epoll_open", daemon.descriptor, READABLE | kind)
        waiting = daemon.client.start("epoll_wait", epoll, _LONG)
        waiting.wait_blocked()
        requester.create()
        found = waiting.result()
        daemon.answer(daemon.question())
    return found


@cases(
    case("a second message is an edge, though the first is unread", [READABLE, READABLE, 0], False),
    case("EPOLL_CTL_MOD makes an edge of what is queued", [READABLE, READABLE, READABLE], True),
)
def test_edges(system: System, modify: bool) -> Value:
    requester = system.requester()
    events = READABLE | _EDGE
    with system.daemon() as daemon:
        epoll = daemon.client.call("epoll_open", daemon.descriptor, events)
        found = []
        for _ in range(2):
            requester.create().wait_sent()
            found.append(daemon.client.call("epoll_wait", epoll, 0.5))
        if modify:
            daemon.client.call("epoll_modify", epoll, daemon.descriptor, events)
        found.append(daemon.client.call("epoll_wait", epoll, 0.05))
        questions = [daemon.question() for _ in range(2)]
        for question in questions:
            daemon.answer(question)
    return found
