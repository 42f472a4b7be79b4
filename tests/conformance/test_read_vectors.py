"""readv(2) and preadv2(2): the kernel's device takes each segment for a read of its own."""

import os
import signal

from tests.conformance.case import case, cases
from tests.conformance.daemon import BLOCKS, PACKET_MAX, Question, attempt_blocking
from tests.conformance.system import System, Value

_PACKET = 52
_POSITION = "no-position"
_JOINED = "vectors"


@cases(
    case("too small a segment first: it blocks for it", BLOCKS, [5, 100]),
    case("two large segments", BLOCKS, [100, 100]),
    case("no octets, twice", b"", [0, 0]),
    case("no segments", b"", []),
)
def test_readv_of_nothing(system: System, sizes: list[int]) -> Value:
    with system.daemon() as daemon:
        read = daemon.client.start("read_vector", daemon.descriptor, sizes)
        found = attempt_blocking(read)
        daemon.feed(system.requester().create, read)
    return found


@cases(
    case("too small a segment first", 0, [5, PACKET_MAX], deviation=(_JOINED, _PACKET)),
    case("enough in the second", 0, [_PACKET - 1, _PACKET], deviation=(_JOINED, _PACKET)),
    case("enough together", 0, [_PACKET - 1, 1], deviation=(_JOINED, _PACKET)),
    case("an empty segment first", _PACKET, [0, PACKET_MAX]),
    case("more than enough twice", _PACKET, [PACKET_MAX, PACKET_MAX]),
    case("one octet more, and more", _PACKET, [_PACKET + 1, PACKET_MAX]),
    case("exactly enough, and nothing", _PACKET, [_PACKET, 0]),
    case("no octets, twice", 0, [0, 0]),
    case("no segments", 0, []),
)
def test_readv(system: System, sizes: list[int]) -> Value:
    with system.daemon() as daemon:
        system.requester().create()
        daemon.poll(seconds=5.0)
        octets = daemon.call("read_vector", sizes)
        assert isinstance(octets, bytes)
        daemon.answer(Question.parse(octets) if octets else daemon.question())
    return len(octets)


@cases(
    case(
        "exactly enough, and more: it blocks for a second message, until a signal",
        (BLOCKS, _PACKET),
        deviation=(_JOINED, (_PACKET, _PACKET)),
    )
)
def test_readv_blocks_for_more(system: System) -> Value:
    with system.daemon() as daemon:
        system.requester().create()
        daemon.poll(seconds=5.0)
        read = daemon.client.start("read_vector", daemon.descriptor, [_PACKET, PACKET_MAX])
        found = attempt_blocking(read)
        if found == BLOCKS:
            daemon.client.call("signal_thread", read.thread, signal.SIGUSR1)
        octets = read.result()
        daemon.answer(Question.parse(octets))
    return found if found == BLOCKS else len(octets), len(octets)


@cases(
    case(
        "exactly enough, and more, reads two messages",
        2 * _PACKET,
        [_PACKET, PACKET_MAX],
        deviation=(_JOINED, _PACKET),
    ),
    case(
        "exactly enough, and less, reads one",
        _PACKET,
        [_PACKET, _PACKET - 1],
    ),
    case("more than enough twice reads one", _PACKET, [_PACKET + 1, PACKET_MAX]),
)
def test_readv_of_two(system: System, sizes: list[int]) -> Value:
    requester = system.requester()
    with system.daemon() as daemon:
        for _ in range(2):
            requester.create().wait_sent()
        octets = daemon.call("read_vector", sizes)
        assert isinstance(octets, bytes)
        for start in range(0, len(octets), _PACKET):
            daemon.answer(Question.parse(octets[start : start + _PACKET]))
        for _ in range(2 - len(octets) // _PACKET):
            daemon.answer(daemon.question())
    return len(octets)


_NO_WAITING = os.RWF_NOWAIT


@cases(
    case("RWF_NOWAIT is not known", "ENOTSUP", -1, _NO_WAITING),
    case(
        "RWF_NOWAIT at a position is not known",
        "ENOTSUP",
        0,
        _NO_WAITING,
        deviation=(_POSITION, "ESPIPE"),
    ),
    case("without flags, it blocks", BLOCKS, -1, 0),
    case("without flags, at a position", BLOCKS, 7, 0, deviation=(_POSITION, "ESPIPE")),
)
def test_preadv2_of_nothing(system: System, offset: int, flags: int) -> Value:
    with system.daemon() as daemon:
        read = daemon.client.start("read_vector_at", daemon.descriptor, [PACKET_MAX], offset, flags)
        found = attempt_blocking(read)
        daemon.feed(system.requester().create, read)
    return found


@cases(
    case("RWF_NOWAIT is not known, and the message stays", "ENOTSUP", _NO_WAITING),
    case("without flags, it reads the message", _PACKET, 0),
)
def test_preadv2(system: System, flags: int) -> Value:
    with system.daemon() as daemon:
        system.requester().create()
        daemon.poll(seconds=5.0)
        octets = daemon.call("read_vector_at", [PACKET_MAX], -1, flags)
        if isinstance(octets, bytes):
            daemon.answer(Question.parse(octets))
            return len(octets)
        daemon.answer(daemon.question())
        return octets
