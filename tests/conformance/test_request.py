"""A request from beginning to end: what the daemon sees of it, and what the requester."""

from dataclasses import replace

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

_AES_128_SIZES = (16, 19)  # of the signature; of the cipher code, the key and its checksum


@cases(
    case("creating a file asks root's daemon to encrypt its key", (66, *_AES_128_SIZES), ROOT),
    case("creating a file asks its user's daemon to encrypt its key", (66, *_AES_128_SIZES), USER),
)
def test_encrypt(system: System, uid: int) -> Value:
    with system.daemon(uid) as daemon:
        asked = system.requester(uid).create()
        question = daemon.question()
        assert daemon.answer(question) == len(question.response())
        assert (asked.outcome, asked.when) == ("OK", AT_ONCE)
    request = question.request
    return request.TAG, len(request.signature), len(request.content)


@cases(
    case("opening a file asks root's daemon to decrypt its key", (64, True), ROOT),
    case("opening a file asks its user's daemon to decrypt its key", (64, True), USER),
)
def test_decrypt(system: System, uid: int) -> Value:
    with system.daemon(uid) as daemon:
        created = system.requester(uid).create()
        encrypted = daemon.question()
        daemon.answer(encrypted)
        asked = system.requester(uid).open(created.file)
        question = daemon.question()
        daemon.answer(question)
        assert (asked.outcome, asked.when) == ("OK", AT_ONCE)
    return question.request.TAG, question.good_answer[3:] == encrypted.request.content


@cases(case("a REQUEST is type, counter, length, index, data_len, data", True))
def test_layout(system: System) -> Value:
    with system.daemon() as daemon:
        asked = system.requester().create()
        octets = daemon.read()
        assert isinstance(octets, bytes)
        counter, index = octets[1:5], octets[6:10]
        daemon.write(bytes.fromhex(f"67{counter.hex()}0a{index.hex()}0200000043ff"))
        assert asked.outcome == "EIO"
    head = bytes.fromhex(f"66{counter.hex()}2e{index.hex()}260000004210")
    return octets[:16] == head and octets[32] == 19 and len(octets) == 52


@cases(
    case("a daemon that has said nothing is asked", ("OK", 0), ""),
    case("a daemon that has said HELO is asked", ("OK", 0), "6400000000"),
    case("a daemon that has said QUIT is asked", ("OK", 0), "6500000000"),
)
def test_greeting(system: System, octets: str) -> Value:
    with system.daemon() as daemon:
        daemon.write(bytes.fromhex(octets))
        asked = system.requester().create()
        daemon.answer(daemon.question())
        return asked.outcome, daemon.poll()


@cases(
    case("root's daemon alone is asked by root", (READABLE, 0), ROOT),
    case("a user's daemon alone is asked by the user", (0, READABLE), USER),
)
def test_who_is_asked(system: System, uid: int) -> Value:
    with system.daemon(ROOT) as root, system.daemon(USER) as user:
        asked = system.requester(uid).create()
        its_own = user if uid == USER else root
        its_own.poll(seconds=5.0)
        found = root.poll(), user.poll()
        its_own.answer(its_own.question())
        assert asked.outcome == "OK"
        return found


@cases(
    case("what is created without a daemon fails at once", ("ENOTCONN", AT_ONCE), []),
    case("what is created with another's daemon fails too", ("ENOTCONN", AT_ONCE), [OTHER_USER]),
)
def test_create_without_a_daemon(system: System, holders: list[int]) -> Value:
    daemons = [system.daemon(uid) for uid in holders]
    asked = system.requester(USER).create()
    found = asked.outcome, asked.when
    for daemon in daemons:
        assert daemon.poll() == 0
        daemon.close()
    return found


@cases(case("what is opened without a daemon fails at once", ("EIO", AT_ONCE)))
def test_open_without_a_daemon(system: System) -> Value:
    with system.daemon() as daemon:
        file = system.created_file(daemon)
    asked = system.requester().open(file)
    return asked.outcome, asked.when


@cases(
    case(
        "a request that nobody reads leaves five octets, and its answer is refused",
        ("EIO", READABLE, b"", (102, 1), 0, "EINVAL", "OK"),
    )
)
def test_time_out_unread(system: System) -> Value:
    with system.daemon() as daemon:
        first = system.requester().create()
        before = daemon.question()
        daemon.answer(before)
        assert first.outcome == "OK"
        asked = system.requester().create()
        assert asked.when == AFTER_THE_TIME_OUT
        found = asked.outcome, daemon.poll(), daemon.read(4)
        left = daemon.read()
        assert isinstance(left, bytes)
        assert len(left) == 5
        more = int.from_bytes(left[1:]) - before.counter
        late = replace(before, counter=before.counter + more)
        answered = daemon.poll(), daemon.answer(late)
        following = system.requester().create()
        daemon.answer(daemon.question())
        return *found, (left[0], more), *answered, following.outcome


@cases(case("a request that nobody answers ends, and its answer is refused", ("EIO", 0, "EINVAL")))
def test_time_out_unanswered(system: System) -> Value:
    with system.daemon() as daemon:
        asked = system.requester().create()
        question = daemon.question()
        assert asked.when == AFTER_THE_TIME_OUT
        return asked.outcome, daemon.poll(), daemon.answer(question)


@cases(case("to decrypt is not answered: it ends, and its answer is refused", ("EIO", 0, "EINVAL")))
def test_time_out_of_open(system: System) -> Value:
    with system.daemon() as daemon:
        asked = system.requester().open(system.created_file(daemon))
        question = daemon.question()
        assert asked.when == AFTER_THE_TIME_OUT
        return asked.outcome, daemon.poll(), daemon.answer(question)


@cases(case("answered unread: it is taken, and leaves five octets", ("OK", READABLE, 5, 0)))
def test_answer_before_reading(system: System) -> Value:
    with system.daemon() as daemon:
        first = system.requester().create()
        question = daemon.question()
        daemon.answer(question)
        assert first.outcome == "OK"
        # The context that was freed last is the next one to be used.
        asked = system.requester().create()
        daemon.poll(seconds=5.0)
        daemon.answer(replace(question, counter=question.counter + 1))
        found = asked.outcome, daemon.poll()
        left = daemon.read()
        assert isinstance(left, bytes)
        return *found, len(left), daemon.poll()
