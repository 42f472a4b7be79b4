"""The packet of the device, and the message in it."""

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ecryptfs_cuse.wire.errors import BuildError, LengthError, ParseError
from ecryptfs_cuse.wire.packet import (
    MESSAGE_DATA_MAX,
    Message,
    Packet,
    PacketType,
    build_message,
    build_packet,
    parse_message,
    parse_packet,
)
from ecryptfs_cuse.wire.tags import (
    FileKey,
    Tag64,
    Tag65,
    Tag66,
    Tag67,
    TagReply,
    TagRequest,
    build_file_key,
    build_reply,
    build_request,
    parse_reply,
    parse_request,
)
from tests.wire import values


@given(values.packets)
def test_a_packet_that_was_built_is_parsed_to_the_same_value(packet: Packet) -> None:
    assert parse_packet(build_packet(packet)) == packet


@given(values.messages)
def test_a_message_that_was_built_is_parsed_to_the_same_value(message: Message) -> None:
    assert parse_message(build_message(message)) == message


@given(values.any_octets)
def test_any_octets_are_a_packet_or_a_parse_error(octets: bytes) -> None:
    try:
        packet = parse_packet(octets)
    except ParseError:
        return
    assert build_packet(packet) == octets


@given(values.any_octets)
def test_any_octets_are_a_message_or_a_parse_error(octets: bytes) -> None:
    try:
        message = parse_message(octets)
    except ParseError:
        return
    assert build_message(message) == octets


def test_the_counter_is_big_endian() -> None:
    assert build_packet(Packet(PacketType.HELO, 0x01020304)) == bytes.fromhex("6401020304")
    assert parse_packet(bytes.fromhex("6401020304")).counter == 0x01020304


@given(values.u32, st.binary(max_size=20))
def test_index_and_data_len_are_native_endian(index: int, data: bytes) -> None:
    octets = struct.pack("=I", index) + struct.pack("=I", len(data)) + data
    assert build_message(Message(index, data)) == octets
    assert parse_message(octets) == Message(index, data)


def test_a_packet_of_any_type_octet_is_parsed() -> None:
    for type_octet in range(256):
        assert parse_packet(bytes((type_octet, 0, 0, 0, 9))) == Packet(type_octet, 9)
        assert parse_packet(bytes((type_octet, 0, 0, 0, 9, 0))) == Packet(type_octet, 9, b"")


def test_a_packet_without_a_body_differs_from_one_with_an_empty_body() -> None:
    assert build_packet(Packet(PacketType.REQUEST, 1)) == bytes.fromhex("6600000001")
    assert build_packet(Packet(PacketType.REQUEST, 1, b"")) == bytes.fromhex("660000000100")


@pytest.mark.parametrize("size", range(5))
def test_fewer_than_five_octets_are_no_packet(size: int) -> None:
    with pytest.raises(ParseError):
        parse_packet(b"\x64\0\0\0\0"[:size])


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param("6400000000 01", id="one octet announced, none there"),
        pytest.param("6400000000 00 78", id="none announced, one there"),
        pytest.param("6400000000 c000" + "00" * 191, id="192 announced, 191 there"),
        pytest.param("6400000000 c000" + "00" * 193, id="192 announced, 193 there"),
    ],
)
def test_the_packet_length_covers_exactly_what_follows_it(octets: str) -> None:
    with pytest.raises(ParseError):
        parse_packet(bytes.fromhex(octets))


@pytest.mark.parametrize("length", ["c0", "df", "e0", "e00000", "fe00", "ff", "ff00000000"])
def test_a_packet_length_that_cannot_be_read_is_a_length_error(length: str) -> None:
    with pytest.raises(LengthError):
        parse_packet(bytes.fromhex("6400000000" + length))


@given(values.u32, st.binary(max_size=20), values.u32)
@example(0, b"", 0xFFFF_FFF8)  # plus the eight octets of the header: nothing, in 32 bits
@example(0, b"abc", 0xFFFF_FFFF)
def test_data_len_must_be_what_is_there(index: int, data: bytes, data_len: int) -> None:
    octets = struct.pack("=II", index, data_len) + data
    if data_len == len(data):
        assert parse_message(octets) == Message(index, data)
    else:
        with pytest.raises(ParseError):
            parse_message(octets)


@pytest.mark.parametrize("size", range(8))
def test_fewer_than_eight_octets_are_no_message(size: int) -> None:
    with pytest.raises(ParseError):
        parse_message(bytes(size))


@given(st.integers(-1, 256) | st.integers(), st.integers(-1, 1 << 32) | st.integers())
def test_only_a_type_of_8_bits_and_a_counter_of_32_bits_are_built(kind: int, counter: int) -> None:
    fits = 0 <= kind < 1 << 8 and 0 <= counter < 1 << 32
    for body in (None, b"", b"body"):
        if fits:
            assert parse_packet(build_packet(Packet(kind, counter, body))).type == kind
        else:
            with pytest.raises(BuildError):
                build_packet(Packet(kind, counter, body))


@given(st.integers(-1, 1 << 32) | st.integers())
def test_only_an_index_of_32_bits_is_built(index: int) -> None:
    if 0 <= index < 1 << 32:
        assert parse_message(build_message(Message(index, b""))).index == index
    else:
        with pytest.raises(BuildError):
            build_message(Message(index, b""))


def test_a_body_or_data_longer_than_the_packet_length_can_say_is_not_built() -> None:
    longest = build_message(Message(0, bytes(MESSAGE_DATA_MAX)))
    assert len(build_packet(Packet(PacketType.REQUEST, 1, longest))) == 5 + 2 + 8383
    with pytest.raises(BuildError):
        build_packet(Packet(PacketType.REQUEST, 1, longest + b"\0"))
    with pytest.raises(BuildError):
        build_message(Message(0, bytes(MESSAGE_DATA_MAX + 1)))


# What the real device and the real ecryptfsd said to one another. The key is 01 02 ... 10, and its
# checksum 0088; the encrypted key has 256 octets, as RSA 2048 makes it.

SIGNATURE = "13a050d7dceb34a3"
SIGNATURE_HEX = SIGNATURE.encode().hex()
KEY_HEX = bytes(range(1, 17)).hex()
PAYLOAD = build_file_key(FileKey(7, bytes.fromhex(KEY_HEX)))
ENCRYPTED = bytes(255 - n % 251 for n in range(256))

REQUESTS_SEEN = [
    pytest.param(
        "66 00000001 2e",
        (5, 0x26),
        f"42 10 {SIGNATURE_HEX} 13 07 {KEY_HEX} 0088",
        Tag66(SIGNATURE, PAYLOAD),
        id="encrypt this key",
    ),
    pytest.param(
        "66 00000002 c05c",
        (6, 0x114),
        f"40 10 {SIGNATURE_HEX} c040 {ENCRYPTED.hex()}",
        Tag64(SIGNATURE, ENCRYPTED),
        id="decrypt this key",
    ),
]

REPLIES_SEEN = [
    pytest.param(
        "67 00000001 c04c",
        (5, 0x104),
        f"43 00 c040 {ENCRYPTED.hex()}",
        Tag67(0, ENCRYPTED),
        id="here is the encrypted key",
    ),
    pytest.param(
        "67 00000002 1e",
        (6, 0x16),
        f"41 00 13 07 {KEY_HEX} 0088",
        Tag65(0, PAYLOAD),
        id="here is the key",
    ),
    pytest.param("67 00000003 0a", (0, 2), "43 ff", Tag67(0xFF), id="cannot encrypt"),
    pytest.param("67 00000004 0a", (0, 2), "41 ff", Tag65(0xFF), id="cannot decrypt"),
]


def seen(header: str, index_and_size: tuple[int, int], data: str) -> bytes:
    return bytes.fromhex(header) + struct.pack("=II", *index_and_size) + bytes.fromhex(data)


@pytest.mark.parametrize(("header", "index_and_size", "data", "request_"), REQUESTS_SEEN)
def test_a_request_as_the_device_sent_it_is_built_and_parsed_octet_for_octet(
    header: str, index_and_size: tuple[int, int], data: str, request_: TagRequest
) -> None:
    octets = seen(header, index_and_size, data)
    packet = parse_packet(octets)
    assert packet.type == PacketType.REQUEST
    assert packet.body is not None
    message = parse_message(packet.body)
    assert message.index == index_and_size[0]
    assert parse_request(message.data) == request_
    rebuilt = build_message(Message(message.index, build_request(request_)))
    assert build_packet(Packet(PacketType.REQUEST, packet.counter, rebuilt)) == octets


@pytest.mark.parametrize(("header", "index_and_size", "data", "reply"), REPLIES_SEEN)
def test_a_response_as_ecryptfsd_sent_it_is_built_and_parsed_octet_for_octet(
    header: str, index_and_size: tuple[int, int], data: str, reply: TagReply
) -> None:
    octets = seen(header, index_and_size, data)
    packet = parse_packet(octets)
    assert packet.type == PacketType.RESPONSE
    assert packet.body is not None
    message = parse_message(packet.body)
    assert message.index == index_and_size[0]
    assert parse_reply(message.data) == reply
    rebuilt = build_message(Message(message.index, build_reply(reply)))
    assert build_packet(Packet(PacketType.RESPONSE, packet.counter, rebuilt)) == octets


def test_helo_and_quit_are_built_and_parsed_octet_for_octet() -> None:
    for octets, kind in (("6400000000", PacketType.HELO), ("6500000000", PacketType.QUIT)):
        assert build_packet(Packet(kind, 0)) == bytes.fromhex(octets)
        assert parse_packet(bytes.fromhex(octets)) == Packet(kind, 0)
