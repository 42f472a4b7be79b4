"""The tag packets: what eCryptfs asks of a key daemon, and what the daemon answers.

    tag  direction          octets
    64   device to daemon   40 | length, signature | length, encrypted key       decrypt this key
    65   daemon to device   41 | status | length, payload                        the answer to 64
    66   device to daemon   42 | length, signature | length, payload             encrypt this key
    67   daemon to device   43 | status | length, encrypted key                  the answer to 66

A payload is cipher code (1 octet), file encryption key, checksum (2 octets, big endian: the sum of
the key's octets). Status 0 is success. A failure is its two octets ``41 ff`` or ``43 ff``.

Octets behind a packet are ignored, as the kernel and ecryptfsd do. Lengths are those of
wire/length.py.

Source: keystore.c, write_tag_64_packet, parse_tag_65_packet, write_tag_66_packet,
parse_tag_67_packet.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from construct import (
    Construct,
    ConstructError,
    Int8ub,
    Int16ub,
    Struct,
)

from ecryptfs_cuse.wire.errors import BuildError, LengthError, ParseError
from ecryptfs_cuse.wire.length import Counted

SIGNATURE_SIZE = 16
"""Octets of a signature: eight octets of a digest in hexadecimal (ECRYPTFS_SIG_SIZE_HEX)."""

KEY_MAX = 64
"""The longest file encryption key, in octets (ECRYPTFS_MAX_KEY_BYTES)."""

ENCRYPTED_KEY_MAX = 512
"""The longest encrypted key, in octets (ECRYPTFS_MAX_ENCRYPTED_KEY_BYTES)."""

STATUS_OK = 0
STATUS_FAILED = 0xFF
_REPLY_MIN = 4  # the kernel refuses a shorter reply, even where its fields would fit

_counted = Counted()
_REQUEST = Struct("tag" / Int8ub, "signature" / _counted, "content" / _counted).compile()
_REPLY = Struct("tag" / Int8ub, "status" / Int8ub, "content" / _counted).compile()
_FAILURE = Struct("tag" / Int8ub, "status" / Int8ub).compile()
_CHECKSUM = Int16ub


@dataclass(frozen=True, slots=True)
class _Request:
    """signature: which key is meant, 16 ASCII characters; content: what to do it to."""

    TAG: ClassVar[int]
    signature: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Reply:
    """status: 0 done, anything else failed; content: the result, empty where it failed."""

    TAG: ClassVar[int]
    status: int
    content: bytes = field(default=b"", repr=False)


class Tag64(_Request):
    """Decrypt this file key; content is the encrypted key."""

    __slots__ = ()
    TAG = 64


class Tag65(_Reply):
    """The answer to Tag64; content is the payload: cipher code, key, checksum."""

    __slots__ = ()
    TAG = 65


class Tag66(_Request):
    """Encrypt this file key; content is the payload: cipher code, key, checksum."""

    __slots__ = ()
    TAG = 66


class Tag67(_Reply):
    """The answer to Tag66; content is the encrypted key."""

    __slots__ = ()
    TAG = 67


TagRequest = Tag64 | Tag66
TagReply = Tag65 | Tag67
_REQUESTS: dict[int, type[TagRequest]] = {64: Tag64, 66: Tag66}
_REPLIES: dict[int, type[TagReply]] = {65: Tag65, 67: Tag67}


@dataclass(frozen=True, slots=True)
class FileKey:
    """A file encryption key with the code of its cipher (RFC 2440, section 9.2)."""

    cipher_code: int
    key: bytes = field(repr=False)


def parse_request(octets: bytes) -> TagRequest:
    """Read a tag 64 or 66 packet.

    Raises ParseError for another tag, for octets that are missing and for a signature that is not
    16 ASCII characters.
    """
    kind = _REQUESTS.get(_tag(octets))
    if kind is None:
        raise ParseError(f"tag {_tag(octets)} asks for nothing")
    fields = _parse(_REQUEST, octets)
    signature: bytes = fields.signature
    if len(signature) != SIGNATURE_SIZE or not signature.isascii():
        raise ParseError(f"a signature is {SIGNATURE_SIZE} ASCII characters")
    return kind(signature.decode("ascii"), fields.content)


def build_request(request: TagRequest) -> bytes:
    """The octets of a tag 64 or 66 packet. Raises BuildError for a value that does not fit."""
    if len(request.signature) != SIGNATURE_SIZE or not request.signature.isascii():
        raise BuildError(f"a signature is {SIGNATURE_SIZE} ASCII characters")
    values = {
        "tag": request.TAG,
        "signature": request.signature.encode("ascii"),
        "content": request.content,
    }
    octets: bytes = _REQUEST.build(values)
    return octets


def parse_reply(octets: bytes) -> TagReply:
    """Read a tag 65 or 67 packet; behind a status other than 0 nothing is read.

    Raises LengthError for a length that cannot be read, ParseError for another tag and for octets
    that are missing.
    """
    kind = _REPLIES.get(_tag(octets))
    if kind is None:
        raise ParseError(f"tag {_tag(octets)} answers nothing")
    if len(octets) < 2:
        raise ParseError("the status is missing")
    if octets[1] != STATUS_OK:
        return kind(octets[1])
    return kind(STATUS_OK, _parse(_REPLY, octets).content)


def build_reply(reply: TagReply) -> bytes:
    """The octets of a tag 65 or 67 packet: four at least, but two for a failure.

    Raises BuildError for a status outside 0 to 255 and for a failure with a content.
    """
    if not 0 <= reply.status <= 0xFF:
        raise BuildError(f"a status is one octet: {reply.status} does not fit")
    if reply.status != STATUS_OK and reply.content:
        raise BuildError("a failure has no content")
    values = {"tag": reply.TAG, "status": reply.status, "content": reply.content}
    octets: bytes = (_FAILURE if reply.status != STATUS_OK else _REPLY).build(values)
    return octets if reply.status != STATUS_OK else octets.ljust(_REPLY_MIN, b"\0")


def parse_file_key(payload: bytes) -> FileKey:
    """Read the payload of tag 65 or 66. Raises ParseError where it is short or its sum is wrong."""
    if len(payload) < 3:
        raise ParseError("a payload is a cipher code, a key and a checksum of two octets")
    key = payload[1:-2]
    if _CHECKSUM.parse(payload[-2:]) != sum(key) & 0xFFFF:
        raise ParseError("the key's checksum is wrong")
    return FileKey(payload[0], key)


def build_file_key(file_key: FileKey) -> bytes:
    """The payload of tag 65 or 66. Raises BuildError for a cipher code outside 0 to 255."""
    if not 0 <= file_key.cipher_code <= 0xFF:
        raise BuildError(f"a cipher code is one octet: {file_key.cipher_code} does not fit")
    checksum: bytes = _CHECKSUM.build(sum(file_key.key) & 0xFFFF)
    return bytes((file_key.cipher_code,)) + file_key.key + checksum


def _tag(octets: bytes) -> int:
    if not octets:
        raise ParseError("a tag packet cannot be empty")
    return octets[0]


def _parse(form: Construct, octets: bytes) -> Any:
    try:
        return form.parse(octets)
    except LengthError:
        raise
    except ConstructError:
        raise ParseError("the tag packet is shorter than its lengths say") from None
