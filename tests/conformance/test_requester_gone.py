"""A requester that gets a signal while it waits: what its daemon sees of it, which is nothing."""

import signal

from tests.conformance.case import case, cases
from tests.conformance.daemon import READABLE, Daemon, Question
from tests.conformance.system import AFTER_THE_TIME_OUT, USER, System, Value

TAKEN = "taken"


def _answered(daemon: Daemon, question: Question) -> Value:
    written = daemon.answer(question)
    return TAKEN if written == len(question.response()) else written


@cases(
    case("a signal with a handler, before it is read", (READABLE, TAKEN, "EINVAL", "OK"), False),
    case("a signal with a handler, after it is read", (0, TAKEN, "EINVAL", "OK"), True),
)
def test_handled_signal(system: System, is_read: bool) -> Value:
    requester = system.new_requester()
    requester.client.call("handle_signal", signal.SIGUSR2, True)
    with system.daemon() as daemon:
        asked = requester.create()
        asked.wait_sent()
        question = daemon.question() if is_read else None
        asked.send_signal(signal.SIGUSR2)
        events = daemon.poll()
        question = question or daemon.question()
        found = _answered(daemon, question), _answered(daemon, question)
        return events, *found, asked.outcome


@cases(case("stopped: its answer is taken, and it goes on with it", (TAKEN, "EINVAL", "OK")))
def test_stopped(system: System) -> Value:
    requester = system.new_requester()
    with system.daemon() as daemon:
        asked = requester.create()
        asked.wait_sent()
        requester.client.kill(signal.SIGSTOP)
        question = daemon.question()
        found = _answered(daemon, question), _answered(daemon, question)
        requester.client.kill(signal.SIGCONT)
        return *found, asked.outcome


@cases(
    case("killed before it is read: it is read and answered", (READABLE, TAKEN, "EINVAL"), False),
    case("killed after it is read: it is answered", (0, TAKEN, "EINVAL"), True),
)
def test_killed(system: System, is_read: bool) -> Value:
    requester = system.new_requester()
    with system.daemon() as daemon:
        asked = requester.create()
        asked.wait_sent()
        question = daemon.question() if is_read else None
        requester.client.kill()
        events = daemon.poll()
        question = question or daemon.question()
        found = _answered(daemon, question), _answered(daemon, question)
        requester.client.wait()
        return events, *found


@cases(case("killed and not answered: after the time-out its answer is refused", "EINVAL"))
def test_killed_unanswered(system: System) -> Value:
    requester = system.new_requester()
    with system.daemon() as daemon, system.daemon(USER) as others:
        requester.create()
        question = daemon.question()
        requester.client.kill()
        # The kernel's is gone after its time-out only, and the emulator's at once. What another
        # asks then is over after both.
        requester.client.wait()
        following = system.requester(USER).create()
        others.question()
        assert following.when == AFTER_THE_TIME_OUT
        return _answered(daemon, question)
