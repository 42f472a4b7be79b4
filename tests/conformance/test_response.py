"""A RESPONSE to a request: which one is taken, and from whom. Its tag packet: test_reply.py."""

import os
from collections.abc import Callable
from dataclasses import replace

from ecryptfs_cuse.wire.packet import Message, Packet, PacketType, build_message, build_packet
from tests.conformance.case import case, cases
from tests.conformance.daemon import READABLE, Daemon, Question
from tests.conformance.system import AFTER_THE_TIME_OUT, OTHER_USER, ROOT, USER, System, Value

TAKEN = "taken"

INDEXES = 32
"""How many there are: message_buf_len."""

_DATA_LEN = slice(10, 14)
_DATA = bytes(20)


def _written(daemon: Daemon, octets: bytes) -> Value:
    written = daemon.write(octets)
    return TAKEN if written == len(octets) else written


def _answered(daemon: Daemon, question: Question) -> Value:
    return _written(daemon, question.response())


def _of_type(kind: PacketType) -> Callable[[Question], bytes]:
    return lambda question: build_packet(
        Packet(kind, question.counter, build_message(Message(question.index, _DATA)))
    )


def _with_index(change: Callable[[int], int]) -> Callable[[Question], bytes]:
    return lambda question: replace(question, index=change(question.index)).response(_DATA)


def _with_counter(change: Callable[[int], int]) -> Callable[[Question], bytes]:
    return lambda question: replace(question, counter=change(question.counter)).response(_DATA)


def _with_data_len(data_len: int, order: str = "little") -> Callable[[Question], bytes]:
    def build(question: Question) -> bytes:
        octets = bytearray(question.response(_DATA))
        octets[_DATA_LEN] = data_len.to_bytes(4, "big" if order == "big" else "little")
        return bytes(octets)

    return build


def _swapped(number: int) -> int:
    return int.from_bytes(number.to_bytes(4, "little"), "big")


@cases(
    case("a free index is refused", "EINVAL", _with_index(lambda index: (index + 7) % INDEXES)),
    case("index 32 is refused", "EINVAL", _with_index(lambda _: INDEXES)),
    case("index 0x7fffffff is refused", "EINVAL", _with_index(lambda _: 0x7FFF_FFFF)),
    case("index 0xffffffff is refused", "EINVAL", _with_index(lambda _: 0xFFFF_FFFF)),
    case("a big endian index is refused", "EINVAL", _with_index(_swapped)),
    case("a counter that is one more is refused", "EINVAL", _with_counter(lambda n: n + 1)),
    case("a counter that is one less is refused", "EINVAL", _with_counter(lambda n: n - 1)),
    case("a little endian counter is refused", "EINVAL", _with_counter(_swapped)),
    case("counter 0 is refused", "EINVAL", _with_counter(lambda _: 0)),
    case("a data_len that is one more is refused", "EINVAL", _with_data_len(len(_DATA) + 1)),
    case("a data_len that is one less is refused", "EINVAL", _with_data_len(len(_DATA) - 1)),
    case("a data_len of 0 is refused", "EINVAL", _with_data_len(0)),
    case("a data_len of 0xffffffff is refused", "EINVAL", _with_data_len(0xFFFF_FFFF)),
    case("a big endian data_len is refused", "EINVAL", _with_data_len(len(_DATA), "big")),
    case("its header alone is refused", "EINVAL", lambda question: question.response()[:5]),
    case("without its last octet it is refused", "EINVAL", lambda q: q.response(_DATA)[:-1]),
    case("with one octet more it is refused", "EINVAL", lambda q: q.response(_DATA) + b"\0"),
    case("as a REQUEST it is refused", "EINVAL", _of_type(PacketType.REQUEST)),
    case("as a HELO it is taken, and no answer", TAKEN, _of_type(PacketType.HELO)),
    case("as a QUIT it is taken, and no answer", TAKEN, _of_type(PacketType.QUIT)),
)
def test_wrong_response(system: System, build: Callable[[Question], bytes]) -> Value:
    with system.daemon() as daemon:
        # Two, so that the second one's index is not 0, which is the same in either byte order.
        asked = [system.requester().create(), system.requester().create()]
        questions = [daemon.question(), daemon.question()]
        questions.sort(key=lambda question: question.index)
        found = _written(daemon, build(questions[1]))
        assert [_answered(daemon, question) for question in questions] == [TAKEN, TAKEN]
        assert [each.outcome for each in asked] == ["OK", "OK"]
        return found


@cases(
    case("the index of one request and the counter of another are refused", ("EINVAL", "EINVAL")),
)
def test_of_two_requests(system: System) -> Value:
    with system.daemon() as daemon:
        asked = [system.requester().create(), system.requester().create()]
        first, second = daemon.question(), daemon.question()
        found = (
            _answered(daemon, replace(first, index=second.index)),
            _answered(daemon, replace(second, index=first.index)),
        )
        # Each one's is taken, the last one first.
        assert [_answered(daemon, question) for question in (second, first)] == [TAKEN, TAKEN]
        assert [each.outcome for each in asked] == ["OK", "OK"]
        return found


@cases(case("a second answer is refused", (TAKEN, "EINVAL", "EINVAL")))
def test_several_answers(system: System) -> Value:
    with system.daemon() as daemon:
        asked = system.requester().create()
        question = daemon.question()
        found = tuple(_answered(daemon, question) for _ in range(3))
        assert asked.outcome == "OK"
        return found


@cases(case("the answer of one request is refused while the next has its index", "EINVAL"))
def test_answer_to_the_one_before(system: System) -> Value:
    with system.daemon() as daemon:
        first = system.requester().create()
        old = daemon.question()
        daemon.answer(old)
        assert first.outcome == "OK"
        asked = system.requester().create()
        question = daemon.question()
        assert (question.index, question.counter) == (old.index, old.counter + 1)
        found = _answered(daemon, old)
        daemon.answer(question)
        assert asked.outcome == "OK"
        return found


@cases(case("a late answer is refused while the next request has its index", ("EIO", "EINVAL")))
def test_late_answer(system: System) -> Value:
    with system.daemon() as daemon:
        first = system.requester().create()
        old = daemon.question()
        assert first.when == AFTER_THE_TIME_OUT
        asked = system.requester().create()
        question = daemon.question()
        assert (question.index, question.counter) == (old.index, old.counter + 1)
        found = first.outcome, _answered(daemon, old)
        daemon.answer(question)
        assert asked.outcome == "OK"
        return found


_FOREIGN = "foreign-response"


@cases(
    case(
        "another user's daemon answers, and then its own cannot",
        (TAKEN, "EINVAL"),
        [USER, ROOT],
        0,
        deviation=(_FOREIGN, ("EINVAL", TAKEN)),
    ),
    case(
        "root's daemon answers for another user, and then its own cannot",
        (TAKEN, "EINVAL"),
        [ROOT, USER],
        0,
        deviation=(_FOREIGN, ("EINVAL", TAKEN)),
    ),
    case("a wrong counter is refused from another too", ("EINVAL", TAKEN), [USER, ROOT], 1),
    case("its own daemon answers, and then another cannot", (TAKEN, "EINVAL"), [ROOT, ROOT], 0),
)
def test_whose_answer(system: System, in_turn: list[int], more: int) -> Value:
    asking = in_turn[1]
    with system.daemon(ROOT) as root, system.daemon(USER) as user:
        daemons = {ROOT: root, USER: user}
        asked = system.requester(asking).create()
        question = daemons[asking].question()
        first = replace(question, counter=question.counter + more)
        second = user if in_turn == [ROOT, ROOT] else daemons[asking]
        found = _answered(daemons[in_turn[0]], first), _answered(second, question)
        assert asked.outcome == "OK"
        return found


@cases(
    case("a new daemon of the user answers", TAKEN, ROOT),
    case("another user's daemon answers", TAKEN, OTHER_USER, deviation=(_FOREIGN, "EINVAL")),
)
def test_answer_after_the_first_has_closed(system: System, uid: int) -> Value:
    with system.daemon() as daemon:
        asked = system.requester().create()
        question = daemon.question()
    with system.daemon(uid) as second:
        found = _answered(second, question)
        assert asked.outcome == ("OK" if found == TAKEN else "EIO")
        return found


@cases(case("a passed descriptor reads and answers its opener's requests", (66, TAKEN, "OK")))
def test_passed_descriptor(system: System) -> Value:
    with system.daemon() as daemon, daemon.passed_to(system.client(USER)) as passed:
        asked = system.requester().create()
        question = passed.question()
        return question.request.TAG, _answered(passed, question), asked.outcome


@cases(
    case("after setuid, a daemon answers for who opened it", ("ENOTCONN", "OK")),
)
def test_setuid(system: System) -> Value:
    client = system.new_client()
    with Daemon(client, system.device) as daemon:
        client.call("os.setresuid", USER, USER, USER)
        others = system.requester(USER).create().outcome
        asked = system.requester().create()
        assert _answered(daemon, daemon.question()) == TAKEN
        return others, asked.outcome


@cases(
    case("opened for writing only: its request is not answered", ("EBADF", "EIO"), os.O_WRONLY),
    case("opened for reading only: its answer is not taken", ("EBADF", "EIO"), os.O_RDONLY),
)
def test_one_way(system: System, flags: int) -> Value:
    with system.daemon(flags=flags) as daemon:
        asked = system.requester().create()
        assert daemon.poll(seconds=5.0) == READABLE
        found = daemon.read() if flags == os.O_WRONLY else daemon.answer(daemon.question())
        assert asked.when == AFTER_THE_TIME_OUT
        return found, asked.outcome


@cases(case("opened for writing only, it answers what it cannot read", (TAKEN, "OK", READABLE)))
def test_answer_without_reading(system: System) -> Value:
    with system.daemon() as daemon:
        first = system.requester().create()
        question = daemon.question()
        daemon.answer(question)
        assert first.outcome == "OK"
    with system.daemon(flags=os.O_WRONLY) as daemon:
        asked = system.requester().create()
        assert daemon.poll(seconds=5.0) == READABLE
        found = _answered(daemon, replace(question, counter=question.counter + 1))
        return found, asked.outcome, daemon.poll()
