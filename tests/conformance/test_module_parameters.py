"""The parameters of the module: how many requests may wait, and for how long."""

from tests.conformance.case import case, cases
from tests.conformance.daemon import READABLE
from tests.conformance.system import (
    AFTER_THE_TIME_OUT,
    AT_ONCE,
    OTHER_USER,
    ROOT,
    USER,
    System,
    Value,
)

_UNREAD = ("EIO", READABLE, "6600000001", 0)
"""What is seen of the first request, which nobody reads within its time."""


@cases(
    case("a time-out of 1 s", (_UNREAD, AFTER_THE_TIME_OUT, "OK"), 1),
    case("a time-out of 0 s: at once", (_UNREAD, AT_ONCE, "EIO"), 0),
    case("a time-out of -1 s: at once", (_UNREAD, AT_ONCE, "EIO"), -1),
)
def test_message_wait_timeout(system: System, seconds: int) -> Value:
    system.restart(message_wait_timeout=seconds)
    with system.daemon() as daemon:
        asked = system.requester().create()
        found = asked.outcome, daemon.poll(), _hex(daemon.read()), daemon.poll()
        # The next one is read and answered, if there is the time for it.
        second = system.requester().create()
        if seconds > 0:
            daemon.answer(daemon.question())
        else:
            assert second.outcome == "EIO"
            assert _hex(daemon.read()) == "6600000002"
        return found, asked.when, second.outcome


def _hex(octets: Value) -> str:
    assert isinstance(octets, bytes)
    return octets.hex()


_ANSWER = "0100000078"


@cases(
    case("2: a third request fails at once", ([(1, 0), (2, 1)], "OK", "ENOMEM", AT_ONCE), 2),
    case(
        "64: a sixty-fifth request fails at once",
        ([(index + 1, index) for index in range(64)], "OK", "ENOMEM", AT_ONCE),
        64,
    ),
    case("1: a second request fails at once", ([(1, 0)], "OK", "ENOMEM", AT_ONCE), 1),
    case("0: every request fails at once", ([], "OK", "ENOMEM", AT_ONCE), 0),
)
def test_message_buf_len(system: System, number: int) -> Value:
    system.restart(message_buf_len=number, message_wait_timeout=30)
    with system.daemon() as daemon:
        asked, questions = [], []
        for _ in range(number):
            asked.append(system.requester().create())
            questions.append(daemon.question())
        refused = system.requester().create()
        found = refused.outcome, refused.when
        assert daemon.poll() == 0
        for question in questions:
            daemon.answer(question)
        outcomes = {each.outcome for each in asked} or {"OK"}
        numbers = [(question.counter, question.index) for question in questions]
        return numbers, *outcomes, *found


@cases(
    *(
        case(f"{number}: without a request, a RESPONSE with no index is taken", [], number)
        for number in (0, 2, 64)
    )
)
def test_index_without_a_request(system: System, number: int) -> Value:
    system.restart(message_buf_len=number)
    taken = []
    with system.daemon() as daemon:
        for index in (0, 1, 2, 31, 32, 63, 64, 0x7FFF_FFFF, 0xFFFF_FFFF):
            octets = "670000000109" + index.to_bytes(4, "little").hex() + _ANSWER
            if daemon.write(bytes.fromhex(octets)) != "EINVAL":
                taken.append(index)
    return taken


@cases(
    case("an estimate of 1 user: three have their daemons", ["EINVAL"] * 3, 1),
    case("an estimate of 100000 users: three have their daemons", ["EINVAL"] * 3, 100_000),
)
def test_number_of_users(system: System, number: int) -> Value:
    system.restart(number_of_users=number)
    users = (ROOT, USER, OTHER_USER)
    daemons = [system.daemon(uid) for uid in users]
    for uid, daemon in zip(users, daemons, strict=True):
        asked = system.requester(uid).create()
        daemon.answer(daemon.question())
        assert asked.outcome == "OK"
    found = [system.opened(uid) for uid in users]
    for daemon in daemons:
        daemon.close()
    return found
