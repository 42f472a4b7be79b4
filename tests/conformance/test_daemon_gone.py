"""A daemon that goes while somebody waits for its answer.

No other request may be raised within the time-out of one whose daemon has closed with it queued.
"""

from collections.abc import Callable

from tests.conformance.case import case, cases
from tests.conformance.daemon import READABLE, Daemon
from tests.conformance.system import AFTER_THE_TIME_OUT, Asked, System, Value

Going = Callable[[Daemon], None]


def _close(daemon: Daemon) -> None:
    daemon.close()


def _kill(daemon: Daemon) -> None:
    daemon.client.kill()
    daemon.client.wait()


_WAYS: list[tuple[str, Going]] = [("closed", _close), ("killed", _kill)]


def _next_request(system: System, daemon: Daemon) -> str:
    asked = system.requester().create()
    daemon.answer(daemon.question())
    return asked.outcome


def _ended(asked: Asked) -> str:
    assert asked.when == AFTER_THE_TIME_OUT
    return asked.outcome


@cases(
    *(
        case(f"{name} unread: a new daemon does not get it, but the next", (0, "EIO", 0, "OK"), way)
        for name, way in _WAYS
    )
)
def test_queued(system: System, go: Going) -> Value:
    old = Daemon(system.new_client(), system.device)
    asked = system.requester().create()
    assert old.poll(seconds=5.0) == READABLE
    go(old)
    with system.daemon() as daemon:
        events = daemon.poll(seconds=0.1)
        return events, _ended(asked), daemon.poll(), _next_request(system, daemon)


@cases(case("closed when it was read: a new daemon answers late", ("EIO", "EINVAL", 0, "OK")))
def test_read(system: System) -> Value:
    with system.daemon() as old:
        asked = system.requester().create()
        question = old.question()
    with system.daemon() as daemon:
        ended = _ended(asked)
        answered = daemon.answer(question)
        return ended, answered, daemon.poll(), _next_request(system, daemon)


@cases(
    *(
        case(f"{name} when it was read: a new daemon answers in time", ("OK", "EINVAL", "OK"), way)
        for name, way in _WAYS
    )
)
def test_answer_in_time(system: System, go: Going) -> Value:
    old = Daemon(system.new_client(), system.device)
    asked = system.requester().create()
    question = old.question()
    go(old)
    with system.daemon() as daemon:
        assert daemon.answer(question) == len(question.response())
        found = asked.outcome, daemon.answer(question)
        return *found, _next_request(system, daemon)


@cases(case("closed after the time-out, unread: nothing is left of it", (0, "OK")))
def test_left_behind(system: System) -> Value:
    with system.daemon() as old:
        asked = system.requester().create()
        assert _ended(asked) == "EIO"
        assert old.poll() == READABLE
    with system.daemon() as daemon:
        return daemon.poll(), _next_request(system, daemon)


@cases(
    case("closed with three queued and one read: each ends after the time-out", (4 * ["EIO"], "OK"))
)
def test_several(system: System) -> Value:
    with system.daemon() as old:
        asked = [system.requester().create() for _ in range(4)]
        for each in asked:
            each.wait_sent()
        old.question()
    with system.daemon() as daemon:
        found = [_ended(each) for each in asked]
        assert daemon.poll() == 0
        return found, _next_request(system, daemon)
