"""poll(2) and epoll(7) while a thread is blocked in read(2): they are not put on any queue."""

import select

from tests.conformance.case import case, cases
from tests.conformance.daemon import BLOCKS, READABLE, Daemon, Question, attempt_blocking
from tests.conformance.system import Asked, System, Value

_WOKEN = "late-poller"


def _end(daemon: Daemon, octets: bytes, asked: list[Asked]) -> None:
    """Answer what a read has returned, and what is queued."""
    daemon.answer(Question.parse(octets))
    daemon.answer(daemon.question())
    assert [each.outcome for each in asked] == ["OK", "OK"]


@cases(
    case("poll finds nothing", 0, "poll", 0xFFFF, 0.1),
    case("select finds nothing", "", "select_ready", 0.1),
)
def test_nothing_is_reported(system: System, name: str, *arguments: object) -> Value:
    with system.daemon() as daemon:
        read = daemon.start_read()
        read.wait_blocked()
        found = daemon.call(name, *arguments)
        daemon.feed(system.requester().create, read)
    return found


@cases(
    case(
        "a poll lets no second reader in",
        (0, b""),
        pyfuse3=("pyfuse3-position-lock", (0, BLOCKS)),
    )
)
def test_second_reader_after_a_poll(system: System) -> Value:
    with system.daemon() as daemon:
        reads = [daemon.start_read()]
        reads[0].wait_blocked()
        events = daemon.poll(seconds=0.1)
        reads.append(daemon.start_read())
        found = events, attempt_blocking(reads[1])
        daemon.feed(system.requester().create, *reads)
    return found


@cases(
    case("a poll that begins while a read blocks is not woken by a message", "not woken", False),
    case("nor if the device was polled before", "not woken", True, deviation=(_WOKEN, "woken")),
)
def test_late_poll(system: System, polled_before: bool) -> Value:
    long = 0.8 * system.timeout
    requester = system.requester()
    with system.daemon() as daemon:
        if polled_before:
            daemon.poll(seconds=0.01)
        read = daemon.start_read()
        read.wait_blocked()
        polling = daemon.client.start("timed_poll", daemon.descriptor, long)
        polling.wait_blocked()
        # Two, as the read takes one.
        asked = [requester.create() for _ in range(2)]
        events, seconds = polling.result()
        _end(daemon, read.result(), asked)
        assert events == select.POLLIN
    return "woken" if seconds < long else "not woken"


@cases(
    case("by level: it never fires, until EPOLL_CTL_MOD", (0, READABLE, READABLE), 0),
    case("by edge: it never fires, until EPOLL_CTL_MOD", (0, READABLE, READABLE), select.EPOLLET),
)
def test_late_epoll(system: System, kind: int) -> Value:
    requester = system.requester()
    with system.daemon() as daemon:
        read = daemon.start_read()
        read.wait_blocked()
        epoll = daemon.client.call("epoll_open", daemon.descriptor, READABLE | kind)
        asked = [requester.create() for _ in range(2)]
        octets = read.result()
        for each in asked:
            each.wait_sent()
        before = daemon.client.call("epoll_wait", epoll, 0.1)
        polled = daemon.poll()
        daemon.client.call("epoll_modify", epoll, daemon.descriptor, READABLE | kind)
        after = daemon.client.call("epoll_wait", epoll, 0.1)
        _end(daemon, octets, asked)
    return before, polled, after


@cases(case("an epoll of before it fires for what the read leaves", READABLE))
def test_early_epoll(system: System) -> Value:
    requester = system.requester()
    with system.daemon() as daemon:
        epoll = daemon.client.call("epoll_open", daemon.descriptor, READABLE)
        read = daemon.start_read()
        read.wait_blocked()
        asked = [requester.create() for _ in range(2)]
        octets = read.result()
        for each in asked:
            each.wait_sent()
        found = daemon.client.call("epoll_wait", epoll, 0.5)
        _end(daemon, octets, asked)
    return found
