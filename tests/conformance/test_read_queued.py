"""read(2) with a message queued, at a position, and into memory that cannot be written."""

import os

from tests.conformance.case import case, cases
from tests.conformance.daemon import BLOCKS, PACKET_MAX, Question, attempt, attempt_blocking
from tests.conformance.system import System, Value

_PACKET = 52
_POSITION = "no-position"


@cases(case("of all counts, the first that is enough is the packet's size", ([0], _PACKET)))
def test_each_count(system: System) -> Value:
    with system.daemon() as daemon:
        asked = system.requester().create()
        daemon.poll(seconds=5.0)
        lengths = {len(daemon.client.call("raw_read", daemon.descriptor, n)) for n in range(52)}
        octets = daemon.read(_PACKET)
        daemon.answer(Question.parse(octets))
        assert asked.outcome == "OK"
        assert isinstance(octets, bytes)
        return sorted(lengths), len(octets)


@cases(case("messages come in the order of their requests", True))
def test_order(system: System) -> Value:
    requester = system.requester()
    with system.daemon() as daemon:
        for _ in range(4):
            requester.create().wait_sent()
        questions = [daemon.question() for _ in range(4)]
        for question in reversed(questions):
            daemon.answer(question)
    counters = [question.counter for question in questions]
    return counters == list(range(counters[0], counters[0] + 4))


@cases(
    case("at position 7, it blocks as read does", BLOCKS, 7, deviation=(_POSITION, "ESPIPE")),
    case("at position -1, it is refused", "EINVAL", -1),
)
def test_pread_of_nothing(system: System, offset: int) -> Value:
    with system.daemon() as daemon:
        read = daemon.client.start("os.pread", daemon.descriptor, PACKET_MAX, offset)
        found = attempt_blocking(read)
        daemon.feed(system.requester().create, read)
    return found


@cases(
    case("at position 0, it reads the message", _PACKET, 0, deviation=(_POSITION, "ESPIPE")),
    case("at position 1000, it reads the message", _PACKET, 1000, deviation=(_POSITION, "ESPIPE")),
    case("at position -1, the message stays", "EINVAL", -1),
)
def test_pread(system: System, offset: int) -> Value:
    with system.daemon(flags=os.O_RDWR | os.O_NONBLOCK) as daemon:
        system.requester().create()
        daemon.poll(seconds=5.0)
        octets = daemon.call("os.pread", PACKET_MAX, offset)
        if isinstance(octets, bytes):
            daemon.answer(Question.parse(octets))
            return len(octets)
        daemon.answer(daemon.question())
        return octets


_WHENCES = {"SEEK_SET": 0, "SEEK_CUR": 1, "SEEK_END": 2, "SEEK_DATA": 3, "SEEK_HOLE": 4}
_OFFSETS = (0, 5, -5, 1 << 62)


@cases(
    *(
        case(f"{offset:#x} from {name}", 0, offset, whence, deviation=(_POSITION, "ESPIPE"))
        for name, whence in _WHENCES.items()
        for offset in _OFFSETS
    ),
    case("with whence 5, it is refused", "EINVAL", 0, 5),
    case("with whence 99, it is refused", "EINVAL", 0, 99),
    case("with whence -1, it is refused", "EINVAL", 0, -1),
)
def test_lseek(system: System, offset: int, whence: int) -> Value:
    with system.daemon() as daemon:
        return daemon.call("lseek", offset, whence)


@cases(case("the position stays 0 after a read", 0, deviation=(_POSITION, "ESPIPE")))
def test_position_after_reading(system: System) -> Value:
    with system.daemon() as daemon:
        asked = system.requester().create()
        daemon.answer(daemon.question())
        assert asked.outcome == "OK"
        return daemon.call("lseek", 0, os.SEEK_CUR)


_NOWHERE = 0x10
_KERNEL = 0xFFFF_8880_0000_0000


@cases(
    case("to nowhere: it blocks", BLOCKS, _NOWHERE, 100, deviation=("bad-pointers", "EFAULT")),
    case("to the kernel's memory: it is refused at once", "EFAULT", _KERNEL, 100),
    case("no octets to the kernel's memory", "EFAULT", _KERNEL, 0),
)
def test_bad_pointer_and_nothing(system: System, address: int, count: int) -> Value:
    with system.daemon() as daemon:
        read = daemon.client.start("read_into", daemon.descriptor, address, count)
        found = attempt_blocking(read)
        daemon.feed(system.requester().create, read)
    return found


def _queued(system: System, name: str, *arguments: object) -> tuple[Value, bool]:
    """What a call returns while a message is queued, and whether the message is still there."""
    with system.daemon() as daemon:
        asked = system.requester().create()
        daemon.poll(seconds=5.0)
        found = attempt(daemon.client.call, name, daemon.descriptor, *arguments)
        is_left = daemon.poll() != 0
        if is_left:
            daemon.answer(daemon.question())
            assert asked.outcome == "OK"
    return found, is_left


@cases(
    case("to nowhere", ("EFAULT", True), _NOWHERE, 100),
    case(
        "too few octets, to nowhere",
        (0, True),
        _NOWHERE,
        5,
        deviation=("bad-pointers", ("EFAULT", True)),
    ),
    case("to the kernel's memory", ("EFAULT", True), _KERNEL, 100),
    case("no octets, to nowhere", (0, True), _NOWHERE, 0),
)
def test_bad_pointer(system: System, address: int, count: int) -> Value:
    return _queued(system, "read_into", address, count)


@cases(case("to memory that can only be read", ("EFAULT", True)))
def test_read_only_memory(system: System) -> Value:
    return _queued(system, "read_into_read_only", PACKET_MAX)


@cases(
    *(
        case(f"room for {room} before a bad page", ("EFAULT", True), room)
        for room in (1, 3, 5, 6, 20, _PACKET - 1)
    ),
    case("just enough room before a bad page", (_PACKET, False), _PACKET),
)
def test_bad_page(system: System, room: int) -> Value:
    result, _, is_left = _read_before_bad_page(system, room)
    return result, is_left


@cases(
    case(
        "what fits before a bad page is written there",
        20,
        deviation=("bad-pointers", 0),
    )
)
def test_octets_before_a_bad_page(system: System) -> Value:
    octets = _read_before_bad_page(system, 20)[1]
    return len(octets.rstrip(b"\0"))


def _read_before_bad_page(system: System, room: int) -> tuple[Value, bytes, bool]:
    """What a read returns and has written, and whether the message is still there."""
    with system.daemon() as daemon:
        system.requester().create()
        daemon.poll(seconds=5.0)
        result: Value
        octets: bytes
        result, octets = daemon.client.call(
            "read_into_page_end", daemon.descriptor, room, PACKET_MAX
        )
        is_left = daemon.poll() != 0
        daemon.answer(daemon.question() if is_left else Question.parse(octets))
    return result, octets, is_left
