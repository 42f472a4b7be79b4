"""The packet length: one or two octets in the manner of RFC 2440, section 4.2.2.

    first octet    octets   length
    0 .. 191       1        the octet itself
    192 .. 223     2        (first - 192) * 256 + second + 192, that is 192 .. 8383
    224 .. 254     -        refused (RFC 2440: partial lengths)
    255            -        refused (RFC 2440: five octets)

Two octets may say no length below 192, but a length that would fit one octet need not be refused
where a writer used two: there is none, since two octets start at 192.

Source: keystore.c, ecryptfs_parse_packet_length and ecryptfs_write_packet_length.
"""

from typing import Any

from construct import Construct, GreedyBytes, Prefixed, stream_read, stream_write

from ecryptfs_cuse.wire.errors import BuildError, LengthError

ONE_OCTET_MAX = 191
TWO_OCTETS_MAX = 8383
_FIRST_REFUSED = 224


def parse_length(octets: bytes | memoryview) -> tuple[int, int]:
    """Read the length at the start of ``octets``: (length in octets, octets that said it).

    Raises LengthError where the first octet is 224 or more or an octet is missing.
    """
    if len(octets) < 1:
        raise LengthError("the packet length is missing")
    first = octets[0]
    if first <= ONE_OCTET_MAX:
        return first, 1
    if first >= _FIRST_REFUSED:
        raise LengthError(f"a packet length cannot start with the octet {first}")
    if len(octets) < 2:
        raise LengthError("the second octet of the packet length is missing")
    return (first - 192) * 256 + octets[1] + 192, 2


def build_length(length: int) -> bytes:
    """The one or two octets that say ``length``, 0 to 8383.

    The kernel's writer goes on to 65535 in two octets that its own parser refuses; we stop where
    the parser does. Raises BuildError above that.
    """
    if 0 <= length <= ONE_OCTET_MAX:
        return bytes((length,))
    if ONE_OCTET_MAX < length <= TWO_OCTETS_MAX:
        high, low = divmod(length - 192, 256)
        return bytes((high + 192, low))
    raise BuildError(f"a packet length is 0 to {TWO_OCTETS_MAX}, not {length}")


class PacketLength(Construct):  # type: ignore[misc]  # construct has no type information
    """The packet length as a construct, to prefix other formats with."""

    def _parse(self, stream: Any, context: Any, path: str) -> int:
        first = stream_read(stream, 1, path)
        more = 1 if ONE_OCTET_MAX < first[0] < _FIRST_REFUSED else 0
        return parse_length(first + stream_read(stream, more, path))[0]

    def _build(self, obj: int, stream: Any, context: Any, path: str) -> int:
        octets = build_length(obj)
        stream_write(stream, octets, len(octets), path)
        return obj


class Counted(Prefixed):  # type: ignore[misc]  # construct has no type information
    """Octets behind their packet length."""

    def __init__(self) -> None:
        super().__init__(PacketLength(), GreedyBytes)

    def _emitparse(self, code: Any) -> str:
        # What Prefixed compiles to does not notice that octets are missing; this way the compiled
        # code calls _parse, which does.
        raise NotImplementedError
