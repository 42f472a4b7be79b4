"""write(2): which octets the device takes from a daemon."""

from collections.abc import Iterable

from ecryptfs_cuse.wire.length import build_length
from tests.conformance.case import case, cases
from tests.conformance.system import System, Value

HELO = bytes.fromhex("6400000000")

HEADER_SIZE = len(HELO)
MOST = 531
"""The most octets that a packet may have."""

_AT_A_TIME = 10  # packets: what fits a message to a client


def _padded(head: str, total: int) -> bytes:
    """A packet that begins with ``head``, and then zeros up to its size."""
    return bytes.fromhex(head).ljust(total, b"\0")


def _taken(system: System, packets: Iterable[bytes]) -> list[bytes]:
    """Those packets that are taken whole; no other result but EINVAL is allowed."""
    several, taken = list(packets), []
    with system.daemon() as daemon:
        for begin in range(0, len(several), _AT_A_TIME):
            some = several[begin : begin + _AT_A_TIME]
            results = daemon.client.call("write_each", daemon.descriptor, some)
            for packet, result in zip(some, results, strict=True):
                assert result in (len(packet), "EINVAL"), f"{packet.hex()}: {result}"
                if result == len(packet):
                    taken.append(packet)
    return taken


@cases(
    case("no zeros", 0, 0),
    case("4096 zeros", "EINVAL", 4096),
    case("65536 zeros", "EINVAL", 65536),
    case("1048576 zeros", "EINVAL", 1 << 20),
)
def test_zeros(system: System, size: int) -> Value:
    with system.daemon() as daemon:
        return daemon.call("write_zeros", size)


@cases(case("of 0 to 700 zeros, only none are taken", [0]))
def test_zeros_of_every_size(system: System) -> Value:
    return [len(packet) for packet in _taken(system, (bytes(size) for size in range(701)))]


def _message_size(size: int) -> int | None:
    """How many octets there are for a message, where a packet can have this size."""
    if size == HEADER_SIZE:
        return 0
    if size <= HEADER_SIZE + 1 + 191:
        return size - HEADER_SIZE - 1
    return size - HEADER_SIZE - 2 if size >= HEADER_SIZE + 2 + 192 else None


def _of_size(kind: int, size: int) -> bytes:
    """A well-formed packet. Its length fits where a length can."""
    header = bytes((kind, 0, 0, 0, 9))
    message_size = _message_size(size)
    if size < HEADER_SIZE or message_size is None:
        return (header + b"\xc0").ljust(size, b"\0")[:size]
    if size == HEADER_SIZE:
        return header
    return header + build_length(message_size) + bytes(message_size)


_WELL_FORMED = [size for size in range(HEADER_SIZE, MOST + 1) if _message_size(size) is not None]


@cases(
    case("a well-formed HELO of every size is taken, up to 531 octets", _WELL_FORMED, 100),
    case("a well-formed QUIT of every size is taken, up to 531 octets", _WELL_FORMED, 101),
    case("a well-formed REQUEST of no size is taken", [], 102),
    case("a well-formed RESPONSE of no size is taken, without a request", [], 103),
)
def test_well_formed_packets_of_every_size(system: System, kind: int) -> Value:
    packets = (_of_size(kind, size) for size in range(1, 701))
    return [len(packet) for packet in _taken(system, packets)]


@cases(
    case("in five octets, only HELO and QUIT are taken", [100, 101], ""),
    case("in six octets, only HELO and QUIT are taken", [100, 101], "00"),
    case("with an octet, only HELO and QUIT are taken", [100, 101], "0178"),
    case("with a message, only HELO and QUIT are taken", [100, 101], "0b0000000003000000616263"),
    case("with half a message, no type is taken", [], "0b00000000030000006162"),
    case("with too much of a message, no type is taken", [], "0b000000000300000061626364"),
)
def test_type(system: System, body: str) -> Value:
    packets = (bytes((kind,)) + bytes.fromhex("00000009" + body) for kind in range(256))
    return [packet[0] for packet in _taken(system, packets)]


_FRAMES = [
    ("nothing but the header", 5, "", 5),
    ("a length of 0", 6, "00", 6),
    ("a length of 1", 7, "0178", 7),
    ("a length of 1 and nothing", "EINVAL", "01", 6),
    ("a length of 2 and one octet", "EINVAL", "0278", 7),
    ("a length of 3", 9, "03616263", 9),
    ("a length of 3 and two octets", "EINVAL", "036162", 8),
    ("a length of 3 and four octets", "EINVAL", "0361626364", 10),
    ("a length of 191", 197, "bf", 197),
    ("half a length", "EINVAL", "c0", 6),
    ("a length of 192 and nothing", "EINVAL", "c000", 7),
    ("a length of 192 and one octet less", "EINVAL", "c000", 198),
    ("a length of 192", 199, "c000", 199),
    ("a length of 192 and one octet more", "EINVAL", "c000", 200),
    ("a length of 197", 204, "c005", 204),
    ("a length of 447", 454, "c0ff", 454),
    ("a length of 448", 455, "c100", 455),
    ("a length of 518", 525, "c146", 525),
    ("a length of 521", 528, "c149", 528),
    ("a length of 524, the longest", 531, "c14c", 531),
    ("a length of 525", "EINVAL", "c14d", 532),
    ("a length of 8383 and few octets", "EINVAL", "dfff", 27),
    ("a first octet of 224", "EINVAL", "e0", 17),
    ("a first octet of 254", "EINVAL", "fe", 17),
    ("a length of five octets", "EINVAL", "ff0000000a", 20),
    ("a length of five octets that says 0", "EINVAL", "ff00000000", 10),
]


@cases(
    *(
        case(f"{kind} with {name}", expected, _padded(head + body, total))
        for kind, head in (("HELO", "6400000009"), ("QUIT", "6500000009"))
        for name, expected, body, total in _FRAMES
    )
)
def test_frame(system: System, octets: bytes) -> Value:
    with system.daemon() as daemon:
        return daemon.write(octets)


@cases(case("what fits 531 octets is taken, by the length's first octet", [*range(194)]))
def test_first_octet_of_the_length(system: System) -> Value:
    packets = (
        HELO + bytes((first,)) + bytes(first if first < 192 else 1 + (first - 192) * 256 + 192)
        for first in range(256)
    )
    return [packet[HEADER_SIZE] for packet in _taken(system, packets)]


@cases(case("of two length octets, those are taken that fit the size", [0xC000, 0xC0FF, 0xC14C]))
def test_two_octets_of_length(system: System) -> Value:
    packets = []
    for length in (0xC000, 0xC0FF, 0xC14C):
        first, second = divmod(length, 256)
        size = (first - 192) * 256 + second + 192
        packets += [
            HELO + bytes((first, second)) + bytes(size + more) for more in (-192, -2, -1, 0, 1, 2)
        ]
    return [
        int.from_bytes(packet[HEADER_SIZE : HEADER_SIZE + 2]) for packet in _taken(system, packets)
    ]


@cases(case("QUIT has no effect", ("EINVAL", 5, 0)))
def test_quit(system: System) -> Value:
    with system.daemon() as daemon:
        daemon.write(bytes.fromhex("6500000000"))
        return system.opened(process=2), daemon.write(HELO), daemon.poll()


@cases(
    case("a REQUEST of five octets", "EINVAL", "6600000001"),
    case("a REQUEST with a message", "EINVAL", "66000000010b0000000003000000616263"),
    case("a RESPONSE of five octets", "EINVAL", "6700000001"),
    case("a RESPONSE without a message", "EINVAL", "670000000100"),
    case("a RESPONSE with half a message", "EINVAL", "67000000010700000000000000"),
    case("an empty RESPONSE", "EINVAL", "6700000001080000000000000000"),
    case("a RESPONSE with the last index", "EINVAL", "6700000001091f0000000100000078"),
    case("a RESPONSE with an index beyond", "EINVAL", "670000000109200000000100000078"),
    case("a RESPONSE with index 0xffffffff", "EINVAL", "670000000109ffffffff0100000078"),
    case("a RESPONSE whose data_len is small", "EINVAL", "67000000010b0000000002000000616263"),
    case("a RESPONSE whose data_len is large", "EINVAL", "67000000010b0000000004000000616263"),
    case("a RESPONSE with data_len 0xffffffff", "EINVAL", "67000000010b00000000ffffffff616263"),
    case("a RESPONSE with data_len -8", "EINVAL", "67000000010800000000f8ffffff"),
    case("a RESPONSE with counter 0", "EINVAL", "670000000009000000000100000078"),
    case("the longest RESPONSE", "EINVAL", "6700000001c14c0000000004020000" + 516 * "00"),
    case("a RESPONSE beyond", "EINVAL", "6700000001c14d0000000005020000" + 517 * "00"),
)
def test_without_a_request(system: System, octets: str) -> Value:
    with system.daemon() as daemon:
        return daemon.write(bytes.fromhex(octets))


_JOINED = "vectors"


@cases(
    case("a packet in two segments", "EINVAL", ["64", "00000000"], deviation=(_JOINED, 5)),
    case("two packets", 10, ["6400000000"] * 2, deviation=(_JOINED, "EINVAL")),
    case("a good and a bad one", 5, ["6400000000", "01"], deviation=(_JOINED, "EINVAL")),
    case("a bad and a good one", "EINVAL", ["01", "6400000000"]),
    case("a packet and nothing", 5, ["6400000000", ""]),
    case("nothing and a packet", 5, ["", "6400000000"]),
    case("nothing twice", 0, ["", ""]),
    case("no segments", 0, []),
    case(
        "four packets", 22, ["6400000000"] * 3 + ["64000000000178"], deviation=(_JOINED, "EINVAL")
    ),
    case("a body in two segments", "EINVAL", ["640000000001", "78"], deviation=(_JOINED, 7)),
    case("a RESPONSE of five octets before HELO", "EINVAL", ["6700000000", "6400000000"]),
    case(
        "HELO before a RESPONSE to nothing",
        5,
        ["6400000000", "670000000109000000000100000078"],
        deviation=(_JOINED, "EINVAL"),
    ),
)
def test_writev(system: System, segments: list[str]) -> Value:
    with system.daemon() as daemon:
        return daemon.call("os.writev", [bytes.fromhex(each) for each in segments])


@cases(
    case("pwrite ignores the position", 5, HELO, 100, deviation=("no-position", "ESPIPE")),
    case("pwrite at -1 is refused", "EINVAL", HELO, -1),
    case("pwrite of nothing", 0, b"", 5, deviation=("no-position", "ESPIPE")),
    case("pwrite at 2**62", 5, HELO, 1 << 62, deviation=("no-position", "ESPIPE")),
    case("pwrite of zeros", "EINVAL", bytes(5), 5, deviation=("no-position", "ESPIPE")),
)
def test_pwrite(system: System, octets: bytes, offset: int) -> Value:
    with system.daemon() as daemon:
        return daemon.call("os.pwrite", octets, offset)


_NOWHERE = 0x10
_KERNEL = 0xFFFF_8880_0000_0000
_FUSE_LOOKS_FIRST = ("bad-pointers", "EFAULT")


@cases(
    case("no octets from nowhere", 0, _NOWHERE, 0),
    case("one octet from nowhere", "EINVAL", _NOWHERE, 1, deviation=_FUSE_LOOKS_FIRST),
    case("4 octets from nowhere", "EINVAL", _NOWHERE, 4, deviation=_FUSE_LOOKS_FIRST),
    case("5 octets from nowhere", "EFAULT", _NOWHERE, 5),
    case("6 octets from nowhere", "EFAULT", _NOWHERE, 6),
    case("14 octets from nowhere", "EFAULT", _NOWHERE, 14),
    case("531 octets from nowhere", "EFAULT", _NOWHERE, 531),
    case("532 octets from nowhere", "EINVAL", _NOWHERE, 532, deviation=_FUSE_LOOKS_FIRST),
    case("no octets of the kernel's", "EFAULT", _KERNEL, 0),
    case("5 octets of the kernel's", "EFAULT", _KERNEL, 5),
    case("6 octets of the kernel's", "EFAULT", _KERNEL, 6),
)
def test_bad_pointer(system: System, address: int, count: int) -> Value:
    with system.daemon() as daemon:
        return daemon.call("write_from", address, count)


def _cut_off(value: Value) -> tuple[str, Value]:
    """FUSE asks the server to write what is in front of the bad page."""
    return "bad-pointers", value


@cases(
    case("5 octets, all before a bad page", 5, "6400000000", 5),
    case("6 octets, the length on it", "EFAULT", "6400000000", 6, deviation=_cut_off(5)),
    case("14 octets, the length on it", "EFAULT", "6400000000", 14, deviation=_cut_off(5)),
    case("the body on it", "EFAULT", "64000000090800", 14, deviation=_cut_off("EINVAL")),
    case(
        "the body on it, and a length that does not match",
        "EINVAL",
        "64000000090100",
        14,
        deviation=_cut_off(7),
    ),
    case(
        "the second octet of the length on it",
        "EFAULT",
        "640000000901",
        7,
        deviation=_cut_off("EINVAL"),
    ),
)
def test_bad_page(system: System, octets: str, count: int) -> Value:
    with system.daemon() as daemon:
        return daemon.call("write_from_page_end", bytes.fromhex(octets), count)
