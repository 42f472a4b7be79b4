"""write: which packets are taken, which are refused.

The tables follow what was recorded on a real kernel. Every refusal is EINVAL; every packet that is
taken is taken whole. Sizes and native integers are written as on a little endian machine, and
turned where the machine is not.
"""

import errno
import struct
import sys
from collections.abc import Callable

import pytest

from tests.core.emulation import OTHER_USER, USER, Device, Seen, refused, response, seen

EINVAL = "EINVAL"
TAKEN = "taken"
MOST = 531
"""The most octets that a write may have."""


def octets(text: str, total: int | None = None) -> bytes:
    """Octets from hexadecimal, filled up to ``total`` with zeros."""
    found = bytes.fromhex(text)
    return found if total is None else found.ljust(total, b"\0")


def native(value: int) -> str:
    return struct.pack("=I", value & 0xFFFF_FFFF).hex()


def result(device: Device, packet: bytes) -> int | str:
    """What write(2) gives: the number of octets, or the name of its errno."""
    daemon = next(device.messaging.daemons)
    try:
        return device.write(daemon, packet)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def expect(device: Device, packet: bytes, expected: str) -> None:
    assert result(device, packet) == (len(packet) if expected == TAKEN else expected)


@pytest.fixture
def opened(device: Device) -> Device:
    """A device with one daemon and nothing under way."""
    device.open()
    return device


def test_no_octets_at_all_are_taken(opened: Device) -> None:
    assert result(opened, b"") == 0


@pytest.mark.parametrize("size", [*range(1, 20), 190, 191, 192, 196, 197, 198, 199, 200])
@pytest.mark.parametrize("first", ["00", "64", "67"])
def test_zeros_are_refused_in_any_size_unless_they_are_the_rest_of_a_helo(
    opened: Device, size: int, first: str
) -> None:
    taken = first == "64" and size in (5, 6)
    expect(opened, octets(first, size), TAKEN if taken else EINVAL)


@pytest.mark.parametrize("size", [520, 530, 531, 532, 533, 600, 1000, 4096, 65536, 1 << 20])
def test_large_writes_of_zeros_are_refused(opened: Device, size: int) -> None:
    expect(opened, bytes(size), EINVAL)


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param("00000009", id="five octets, no packet length"),
        pytest.param("0000000900", id="six octets, an empty body"),
        pytest.param(
            f"00000009 0b {native(0)} {native(3)} 616263", id="seventeen octets, a whole message"
        ),
    ],
)
def test_of_all_types_only_helo_and_quit_are_taken(opened: Device, packet: str) -> None:
    taken = [
        kind for kind in range(256) if result(opened, bytes((kind,)) + octets(packet)) != EINVAL
    ]
    assert taken == [100, 101]


BODIES = [
    pytest.param("", 5, TAKEN, id="none"),
    pytest.param("00", 6, TAKEN, id="of no octets"),
    pytest.param("01 78", 7, TAKEN, id="of one octet"),
    pytest.param("03 616263", 9, TAKEN, id="of three octets"),
    pytest.param("bf", 6 + 191, TAKEN, id="the longest whose length takes one octet"),
    pytest.param("c000", 7 + 192, TAKEN, id="the shortest whose length takes two"),
    pytest.param("c005", 7 + 197, TAKEN, id="a little longer"),
    pytest.param("c0ff", 7 + 447, TAKEN, id="all of the second octet"),
    pytest.param("c100", 7 + 448, TAKEN, id="the next first octet"),
    pytest.param("c146", 525, TAKEN, id="six below the most"),
    pytest.param("c149", 528, TAKEN, id="three below the most"),
    pytest.param("c14c", MOST, TAKEN, id="the longest of all"),
    pytest.param("c14d", MOST + 1, EINVAL, id="one more"),
    pytest.param("01", 6, EINVAL, id="one octet, none there"),
    pytest.param("02 78", 7, EINVAL, id="two octets, one there"),
    pytest.param("03 6162", 8, EINVAL, id="three octets, two there"),
    pytest.param("03 61626364", 10, EINVAL, id="three octets, four there"),
    pytest.param("c0", 6, EINVAL, id="half a length"),
    pytest.param("c000", 7, EINVAL, id="192 octets, none there"),
    pytest.param("c000", 7 + 191, EINVAL, id="192 octets, 191 there"),
    pytest.param("c000", 7 + 193, EINVAL, id="192 octets, 193 there"),
    pytest.param("dfff", 27, EINVAL, id="8383 octets, few there"),
    pytest.param("e0", 12, EINVAL, id="a partial length"),
    pytest.param("fe", 11, EINVAL, id="the last partial length"),
    pytest.param("ff 0000000a", 18, EINVAL, id="ten in five octets"),
    pytest.param("ff 00000000", 10, EINVAL, id="none in five octets"),
]


@pytest.mark.parametrize("kind", ["64", "65"], ids=["helo", "quit"])
@pytest.mark.parametrize(("body", "total", "expected"), BODIES)
def test_helo_and_quit_may_have_any_body_that_their_length_covers(
    opened: Device, kind: str, body: str, total: int, expected: str
) -> None:
    expect(opened, octets(f"{kind} 00000009 {body}", total), expected)


def test_with_an_exact_body_the_first_length_octet_may_be_0_to_193() -> None:
    def exact(first: int) -> bytes:
        if first < 192 or first > 223:
            return bytes((100, 0, 0, 0, 1, first)) + bytes(first)
        return bytes((100, 0, 0, 0, 1, first, 0)) + bytes((first - 192) * 256 + 192)

    device = Device()
    device.open()
    taken = [first for first in range(256) if result(device, exact(first)) != EINVAL]
    assert taken == list(range(194))  # 194 would be a packet of more than 531 octets


def test_helo_and_quit_have_no_effect(opened: Device) -> None:
    daemon = next(opened.messaging.daemons)
    for packet in ("6500000000", "6400000000", "6500000000"):
        expect(opened, octets(packet), TAKEN)
    with refused(errno.EINVAL):
        opened.open()  # QUIT does not unregister
    assert opened.read(daemon) is None
    assert opened.interrupt(daemon) == b""
    opened.exchange(daemon)


@pytest.mark.parametrize(
    ("packet", "total"),
    [
        pytest.param("", 5, id="five octets"),
        pytest.param("00", 6, id="an empty body"),
        pytest.param("07", 13, id="a body too short for a message"),
        pytest.param(f"08 {native(0)} {native(0)}", 14, id="no data"),
        pytest.param(f"09 {native(0)} {native(1)} 78", 15, id="a free context"),
        pytest.param(f"09 {native(31)} {native(1)} 78", 15, id="the last context"),
        pytest.param(f"09 {native(32)} {native(1)} 78", 15, id="behind the table"),
        pytest.param(f"09 {native(-1)} {native(1)} 78", 15, id="far behind the table"),
        pytest.param(f"0b {native(0)} {native(2)} 616263", 17, id="data_len too small"),
        pytest.param(f"0b {native(0)} {native(4)} 616263", 17, id="data_len too large"),
        pytest.param(f"0b {native(0)} {native(-1)} 616263", 17, id="data_len far too large"),
        pytest.param(f"08 {native(0)} {native(-8)}", 14, id="data_len that would wrap around"),
        pytest.param(f"c14c {native(0)} {native(516)}", MOST, id="the longest of all"),
        pytest.param(f"c14d {native(0)} {native(517)}", MOST + 1, id="one more"),
    ],
)
@pytest.mark.parametrize("counter", ["00000000", "00000001"])
def test_a_response_is_refused_while_nobody_waits(
    opened: Device, counter: str, packet: str, total: int
) -> None:
    expect(opened, octets(f"67 {counter} {packet}", total), EINVAL)


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param("66 00000001", id="without a message"),
        pytest.param(f"66 00000001 0b {native(0)} {native(3)} 616263", id="with a message"),
    ],
)
def test_a_daemon_cannot_send_a_request(opened: Device, packet: str) -> None:
    expect(opened, octets(packet), EINVAL)


# A request with the index 3 and the counter 24 waits; the answer to it is "43 00 13 ...".

ANSWER = bytes.fromhex("430013") + bytes(19)
GOOD = response(24, 3, ANSWER)


@pytest.fixture
def waiting() -> Device:
    """A device on which the request number 24 has the index 3, was read, and waits."""
    device = Device()
    daemon = device.open()
    for number in range(1, 25):
        device.send()
        request = device.next_request(daemon)
        if number in (20, 21, 22):
            continue  # the indexes 0, 1 and 2 stay in use
        if number < 24:
            device.answer(daemon, request)
    assert request == Seen(24, 3, b"question")
    return device


WRONG: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("the index of a free context", lambda _: response(24, 4, ANSWER)),
    ("the index of another pending context", lambda _: response(24, 2, ANSWER)),
    ("an index behind the table", lambda _: response(24, 32, ANSWER)),
    ("an index with its octets swapped", lambda _: response(24, 0x03000000, ANSWER)),
    ("a counter too large by one", lambda _: response(25, 3, ANSWER)),
    ("a counter too small by one", lambda _: response(23, 3, ANSWER)),
    ("a counter with its octets swapped", lambda _: response(0x18000000, 3, ANSWER)),
    ("a data_len too large by one", lambda good: with_data_len(good, 23)),
    ("a data_len too small by one", lambda good: with_data_len(good, 21)),
    ("a data_len of 0", lambda good: with_data_len(good, 0)),
    ("a data_len of the other endianness", lambda good: with_data_len(good, 22 << 24)),
    ("five octets alone", lambda good: good[:5]),
    ("the last octet missing", lambda good: good[:-1]),
    ("one octet too many", lambda good: good + b"\0"),
    ("the type of a request", lambda good: b"\x66" + good[1:]),
    ("the type of nothing", lambda good: b"\x68" + good[1:]),
]


def with_data_len(good: bytes, data_len: int) -> bytes:
    return good[:10] + struct.pack("=I", data_len) + good[14:]


@pytest.mark.parametrize("spoil", [wrong for _, wrong in WRONG], ids=[name for name, _ in WRONG])
def test_a_response_with_something_wrong_is_refused_and_the_right_one_is_taken_after_it(
    waiting: Device, spoil: Callable[[bytes], bytes]
) -> None:
    finished = list(waiting.finished)
    expect(waiting, spoil(GOOD), EINVAL)
    assert waiting.finished == finished
    expect(waiting, GOOD, TAKEN)
    assert waiting.finished == [*finished, 24]


def test_a_response_is_taken_once(waiting: Device) -> None:
    expect(waiting, GOOD, TAKEN)
    expect(waiting, GOOD, EINVAL)


def test_the_octets_of_a_response_under_the_type_helo_answer_nothing(waiting: Device) -> None:
    expect(waiting, b"\x64" + GOOD[1:], TAKEN)
    expect(waiting, GOOD, TAKEN)


@pytest.mark.parametrize("data_len", [0, 1, 183, 184, 500, 516])
def test_a_response_carries_up_to_516_octets(device: Device, data_len: int) -> None:
    daemon = device.open()
    request = device.send()
    data = bytes(n % 251 for n in range(data_len))
    expect(device, response(1, 0, data), TAKEN)
    assert request.take() == data
    assert device.next_request(daemon) == Seen(1)


def test_a_response_of_517_octets_is_refused(device: Device) -> None:
    device.open()
    device.send()
    expect(device, response(1, 0, bytes(517)), EINVAL)
    assert device.finished == []


@pytest.mark.skipif(sys.byteorder != "little", reason="the octets are a little endian machine's")
def test_index_and_data_len_are_little_endian_here_and_the_counter_is_big_endian(
    waiting: Device,
) -> None:
    expect(waiting, octets("67 00000018 0a 03000000 02000000 43ff"), TAKEN)


def test_a_request_may_be_answered_before_it_is_read(device: Device) -> None:
    daemon = device.open()
    request = device.send()
    expect(device, response(1, 0, b"guessed"), TAKEN)
    assert request.take() == b"guessed"
    assert seen(device.read(daemon)) == Seen(1)
    assert device.read(daemon) is None


def test_requests_are_answered_in_any_order(device: Device) -> None:
    daemon = device.open()
    requests = [device.send() for _ in range(4)]
    read = [device.next_request(daemon) for _ in range(4)]
    for place in (3, 2, 1, 0):
        device.answer(daemon, read[place], b"%d" % place)
    assert device.finished == [4, 3, 2, 1]
    assert [request.take() for request in requests] == [b"0", b"1", b"2", b"3"]


def test_another_users_daemon_cannot_answer_although_the_kernel_would_let_it(
    device: Device,
) -> None:
    daemon, other = device.open(USER), device.open(OTHER_USER)
    request = device.send(identity=USER)
    asked = device.next_request(daemon)
    with refused(errno.EINVAL):
        device.answer(other, asked, b"from the other")
    device.answer(daemon, asked, b"from the right one")
    assert request.take() == b"from the right one"


def test_responses_taken_and_refused_are_counted(waiting: Device) -> None:
    totals = waiting.messaging.totals
    assert (totals.responses, totals.responses_refused) == (20, 0)
    expect(waiting, response(24, 32), EINVAL)
    expect(waiting, response(24, 9), EINVAL)
    expect(waiting, response(23, 3), EINVAL)
    expect(waiting, GOOD, TAKEN)
    assert (totals.responses, totals.responses_refused) == (21, 3)
