"""Many requests: their counters, their indexes, and how many there may be."""

from tests.conformance.case import case, cases
from tests.conformance.daemon import Daemon, Question
from tests.conformance.system import AT_ONCE, ROOT, USER, Asked, System, Value

MANY = 200
INDEXES = 32
"""How many requests can wait: message_buf_len."""

_LONG = 30
"""Seconds for which crowds wait, as they take their time."""


def _ask(system: System, daemon: Daemon, uid: int = ROOT) -> tuple[Asked, Question]:
    """Raise a request and read it: when several are raised, this is their order."""
    asked = system.requester(uid).create()
    return asked, daemon.question()


def _numbers(question: Question) -> tuple[int, int]:
    return question.counter, question.index


@cases(
    case("twelve requests one after another", [(counter, 0) for counter in range(1, 13)]),
)
def test_in_turn(system: System) -> Value:
    system.restart()
    found = []
    with system.daemon() as daemon:
        for _ in range(12):
            asked, question = _ask(system, daemon)
            daemon.answer(question)
            assert asked.outcome == "OK"
            found.append(_numbers(question))
    return found


@cases(
    case(
        "indexes that become free are used again, the last one first",
        [
            *((1, 0), (2, 1), (3, 2), (4, 3), (5, 4), (6, 5)),
            *((7, 5), (8, 0), (9, 3), (10, 6)),
            (11, 6),
        ],
        [3, 0, 5],
    ),
    case(
        "in whatever order they become free",
        [
            *((1, 0), (2, 1), (3, 2), (4, 3), (5, 4), (6, 5)),
            *((7, 0), (8, 1), (9, 2), (10, 3)),
            (11, 3),
        ],
        [5, 4, 3, 2, 1, 0],
    ),
)
def test_at_the_same_time(system: System, answered: list[int]) -> Value:
    system.restart(message_wait_timeout=_LONG)
    with system.daemon() as daemon:
        waiting = [_ask(system, daemon) for _ in range(6)]
        found = [_numbers(question) for _, question in waiting]
        for number in answered:
            daemon.answer(waiting[number][1])
            assert waiting[number][0].outcome == "OK"
        more = [_ask(system, daemon) for _ in range(4)]
        found += [_numbers(question) for _, question in more]
        for asked, question in [*waiting, *more]:
            if not asked.is_over:
                daemon.answer(question)
            assert asked.outcome == "OK"
        asked, question = _ask(system, daemon)
        daemon.answer(question)
        assert asked.outcome == "OK"
        return [*found, _numbers(question)]


@cases(case("requests are read in the order in which they came", True))
def test_first_in_first_out(system: System) -> Value:
    system.restart(message_wait_timeout=_LONG)
    with system.daemon() as daemon:
        several = []
        for _ in range(4):
            asked = system.requester().create()
            asked.wait_sent()
            several.append(asked)
        questions = [daemon.question() for _ in several]
        assert daemon.poll() == 0
        for question in reversed(questions):
            daemon.answer(question)
        assert [asked.outcome for asked in several] == 4 * ["OK"]
    return [_numbers(question) for question in questions] == [(1, 0), (2, 1), (3, 2), (4, 3)]


@cases(case("each of 200 requests has the next counter", list(range(1, MANY + 1))))
def test_counters(system: System) -> Value:
    system.restart()
    counters = []
    with system.daemon() as daemon:
        for _ in range(MANY):
            asked, question = _ask(system, daemon)
            daemon.answer(question)
            assert asked.outcome == "OK"
            counters.append(question.counter)
    return counters


@cases(
    case("32 wait, each with an index of its own, and 4 more fail at once", 4 * ["ENOMEM"], True),
    case("so it is when nobody reads them meanwhile", 4 * ["ENOMEM"], False),
)
def test_too_many(system: System, are_read: bool) -> Value:
    system.restart(message_wait_timeout=_LONG)
    with system.daemon() as daemon:
        if are_read:
            waiting, questions = zip(*(_ask(system, daemon) for _ in range(INDEXES)), strict=True)
        else:
            waiting = tuple(system.requester().create() for _ in range(INDEXES))
            for asked in waiting:
                asked.wait_sent()
        too_many = [system.requester().create() for _ in range(4)]
        found = [asked.outcome for asked in too_many]
        assert [asked.when for asked in too_many] == 4 * [AT_ONCE]
        if not are_read:
            questions = tuple(daemon.question() for _ in waiting)
        assert daemon.poll() == 0
        assert [_numbers(question) for question in questions] == [
            (index + 1, index) for index in range(INDEXES)
        ]
        for question in questions:
            daemon.answer(question)
        assert [asked.outcome for asked in waiting] == INDEXES * ["OK"]
        # The counters of those that failed were never used.
        asked, question = _ask(system, daemon)
        daemon.answer(question)
        assert (asked.outcome, question.counter) == ("OK", INDEXES + 1)
        return found


@cases(case("a request that nobody can take uses no counter", ("ENOTCONN", 1)))
def test_counter_of_none(system: System) -> Value:
    system.restart()
    found = system.requester().create().outcome
    with system.daemon() as daemon:
        asked, question = _ask(system, daemon)
        daemon.answer(question)
        assert asked.outcome == "OK"
        return found, question.counter


@cases(case("users share the counters and the indexes", [(1, 0), (2, 1), (3, 2)]))
def test_two_users(system: System) -> Value:
    system.restart(message_wait_timeout=_LONG)
    with system.daemon(ROOT) as root, system.daemon(USER) as user:
        daemons = [root, user, root]
        several = [
            _ask(system, daemon, uid)
            for daemon, uid in zip(daemons, (ROOT, USER, ROOT), strict=True)
        ]
        for daemon, (asked, question) in zip(daemons, several, strict=True):
            daemon.answer(question)
            assert asked.outcome == "OK"
        assert (root.poll(), user.poll()) == (0, 0)
        return [_numbers(question) for _, question in several]


@cases(case("users share the 32 indexes: there is none left for another", ("ENOMEM", AT_ONCE)))
def test_none_left_for_another_user(system: System) -> Value:
    system.restart(message_wait_timeout=_LONG)
    with system.daemon(ROOT) as root, system.daemon(USER):
        several = [_ask(system, root) for _ in range(INDEXES)]
        refused = system.requester(USER).create()
        found = refused.outcome, refused.when
        for asked, question in several:
            root.answer(question)
            assert asked.outcome == "OK"
        return found
