"""Which message context is next after a daemon has closed: what frees one moves it to the head."""

from ecryptfs_cuse.wire.tags import Tag67, build_reply
from tests.conformance.case import case, cases
from tests.conformance.daemon import READABLE, Daemon, Question
from tests.conformance.system import AFTER_THE_TIME_OUT, Asked, System, Value

_LONG = 30
"""Seconds to wait in, where nothing is to time out."""

_ANSWER = build_reply(Tag67(0, bytes(16)))


def _queue(system: System, many: int) -> list[Asked]:
    """Raise requests one after another, which nobody reads."""
    several = []
    for _ in range(many):
        several.append(system.requester().create())
        several[-1].wait_sent()
    return several


def _next_indexes(system: System, daemon: Daemon, many: int) -> list[int]:
    several = _queue(system, many)
    questions = [daemon.question() for _ in several]
    for asked, question in zip(several, questions, strict=True):
        daemon.answer(question)
        assert asked.outcome == "OK"
    return [question.index for question in questions]


@cases(
    case("answered unread: a close frees them again, in the order of the queue", [2, 1, 0, 3], 3),
    case("answered unread, and one read: it stays where it was", [2, 1, 0, 3], 2),
)
def test_answered_unread(system: System, unread: int) -> Value:
    system.restart(message_wait_timeout=_LONG)
    with system.daemon() as daemon:
        several = _queue(system, 3)
        for _ in range(3 - unread):
            daemon.question()
        for index in (1, 0, 2):
            daemon.answer(Question(index + 1, index, b""), _ANSWER)
            assert several[index].outcome == "OK"
        assert daemon.poll() == READABLE
    with system.daemon() as daemon:
        return _next_indexes(system, daemon, 4)


@cases(case("closed with one queued: its time-out frees its context again", [1, 0, 2]))
def test_time_out_after_the_close(system: System) -> Value:
    system.restart()
    with system.daemon() as daemon:
        answered, queued = _queue(system, 2)
        question = daemon.question()
    with system.daemon() as daemon:
        daemon.answer(question)
        assert answered.outcome == "OK"
        assert queued.when == AFTER_THE_TIME_OUT
        return _next_indexes(system, daemon, 3)


@cases(case("timed out unread, another answered unread before: freed again too", [1, 0, 2]))
def test_timed_out_unread(system: System) -> Value:
    system.restart()
    with system.daemon() as daemon:
        timed_out, answered = _queue(system, 2)
        daemon.answer(Question(2, 1, b""), _ANSWER)
        assert answered.outcome == "OK"
        assert timed_out.when == AFTER_THE_TIME_OUT
        assert daemon.poll() == READABLE
    with system.daemon() as daemon:
        return _next_indexes(system, daemon, 3)
