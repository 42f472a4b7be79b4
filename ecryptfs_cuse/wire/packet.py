"""The packet that the device and the key daemon exchange, one for each read and each write.

    struct {
        u8   type;                          /* PacketType */
        be32 counter;                       /* the message context's sequence number */
        /* the rest is absent from a packet of five octets */
        u8   length[1 or 2];                /* wire/length.py: the size of the body */
        struct ecryptfs_message {           /* the body of REQUEST and RESPONSE */
            u32 index;                      /* native endian: the message context's place */
            u32 data_len;                   /* native endian */
            u8  data[data_len];             /* a tag packet, wire/tags.py */
        };
    };

    >>> parse_packet(bytes.fromhex("6400000000"))
    Packet(type=100, counter=0, body=None)

Source: miscdev.c, the comment above ecryptfs_miscdev_read; ecryptfs_kernel.h, ecryptfs_message.
"""

from dataclasses import dataclass, field
from enum import IntEnum

from construct import Int8ub, Int32ub, Int32un, Struct

from ecryptfs_cuse.wire.errors import BuildError, ParseError
from ecryptfs_cuse.wire.fixed import fixed
from ecryptfs_cuse.wire.length import TWO_OCTETS_MAX, build_length, parse_length

HEADER_SIZE = 5
"""Octets of a packet without a body: type and counter."""

MESSAGE_HEADER_SIZE = 8
"""Octets of struct ecryptfs_message before its data."""

MESSAGE_DATA_MAX = TWO_OCTETS_MAX - MESSAGE_HEADER_SIZE
"""The most data that a message can carry, in octets."""


class PacketType(IntEnum):
    """The first octet of a packet (ecryptfs_kernel.h, ECRYPTFS_MSG_*)."""

    HELO = 100
    QUIT = 101
    REQUEST = 102
    RESPONSE = 103


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet, its body not yet looked into.

    type: 0 to 255; PacketType names those that mean something.
    counter: 0 to 2**32 - 1.
    body: what the packet length covers, or None where the packet is its five octets alone.
    """

    type: int
    counter: int
    body: bytes | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        body = None if self.body is None else f"<{len(self.body)} octets>"
        return f"Packet(type={int(self.type)}, counter={self.counter}, body={body})"


@dataclass(frozen=True, slots=True)
class Message:
    """struct ecryptfs_message: the message context's index, 0 to 2**32 - 1, and a tag packet."""

    index: int
    data: bytes = field(repr=False)


_HEADER = fixed(Struct("type" / Int8ub, "counter" / Int32ub))
_MESSAGE_HEADER = fixed(Struct("index" / Int32un, "data_len" / Int32un))


def parse_packet(octets: bytes) -> Packet:
    """Take a packet apart. Any type octet will do here; who reads it decides what it means.

    Raises LengthError for a packet length that cannot be read, ParseError where the octets are
    fewer than five or the length does not cover exactly what follows it.
    """
    if len(octets) < HEADER_SIZE:
        raise ParseError(f"a packet has at least {HEADER_SIZE} octets, not {len(octets)}")
    kind, counter = _HEADER.unpack_from(octets)
    if len(octets) == HEADER_SIZE:
        return Packet(kind, counter)
    length, length_octets = parse_length(octets[HEADER_SIZE : HEADER_SIZE + 2])
    present = len(octets) - HEADER_SIZE - length_octets
    if length != present:
        raise ParseError(f"the packet length says {length} octets, {present} follow it")
    return Packet(kind, counter, octets[HEADER_SIZE + length_octets :])


def build_packet(packet: Packet) -> bytes:
    """The octets of a packet. Raises BuildError for a value outside its field."""
    _check(packet.type, 8, "type")
    _check(packet.counter, 32, "counter")
    header = _HEADER.pack(packet.type, packet.counter)
    if packet.body is None:
        return header
    return header + build_length(len(packet.body)) + packet.body


def parse_message(body: bytes) -> Message:
    """Read struct ecryptfs_message. Raises ParseError where data_len is not what is there."""
    if len(body) < MESSAGE_HEADER_SIZE:
        raise ParseError(f"a message has at least {MESSAGE_HEADER_SIZE} octets, not {len(body)}")
    index, data_len = _MESSAGE_HEADER.unpack_from(body)
    data = body[MESSAGE_HEADER_SIZE:]
    if data_len != len(data):
        raise ParseError(f"data_len says {data_len} octets, {len(data)} follow it")
    return Message(index, data)


def build_message(message: Message) -> bytes:
    """The octets of struct ecryptfs_message. Raises BuildError for a value outside its field."""
    _check(message.index, 32, "index")
    if len(message.data) > MESSAGE_DATA_MAX:
        raise BuildError(f"a message carries {MESSAGE_DATA_MAX} octets, not {len(message.data)}")
    return _MESSAGE_HEADER.pack(message.index, len(message.data)) + message.data


def _check(value: int, bits: int, name: str) -> None:
    if not 0 <= value < 1 << bits:
        raise BuildError(f"{name} has {bits} bits: {value} does not fit")
