"""What the device's packets ask for, and the packets that answer them: no I/O, no state.

Two steps, because the second one computes for a while and may run beside others:

    receive(octets)        ->  Task, or Answer, or Drop, or Quit
    perform(task, key)     ->  Answer
    refuse(task, why)      ->  Answer

None of them raises, whatever the device says and whatever the key does. An answer carries the
counter and the index of its request as they came, and besides them what the key gave, or nothing.
What goes wrong is answered at once by a failure packet, ``43 ff`` to tag 66 and ``41 ff`` to
anything else, so that the requester need not wait for its time-out.
"""

import sys
from dataclasses import dataclass, field
from typing import Protocol

from daemon_client.key import KeyOperationError
from ecryptfs_cuse.wire.errors import ParseError
from ecryptfs_cuse.wire.packet import (
    MESSAGE_HEADER_SIZE,
    Message,
    Packet,
    PacketType,
    build_message,
    build_packet,
    parse_message,
    parse_packet,
)
from ecryptfs_cuse.wire.tags import (
    ENCRYPTED_KEY_MAX,
    KEY_MAX,
    STATUS_FAILED,
    STATUS_OK,
    Tag64,
    Tag65,
    Tag66,
    Tag67,
    TagReply,
    TagRequest,
    build_reply,
    parse_request,
)

HELO = build_packet(Packet(PacketType.HELO, 0))
"""What a daemon writes first."""

QUIT = build_packet(Packet(PacketType.QUIT, 0))
"""What a daemon writes last."""

PAYLOAD_MAX = 1 + KEY_MAX + 2
"""The longest payload: cipher code, key, checksum."""


class Key(Protocol):
    """What can encrypt and decrypt payloads; each raises KeyOperationError where it cannot."""

    def encrypt(self, payload: bytes) -> bytes:
        """The encrypted key of a payload."""

    def decrypt(self, ciphertext: bytes) -> bytes:
        """The payload of an encrypted key."""


@dataclass(frozen=True, slots=True)
class Task:
    """A request that a key may answer. counter, index: 0 to 2**32 - 1, to be sent back."""

    counter: int
    index: int
    request: TagRequest


@dataclass(frozen=True, slots=True)
class Answer:
    """A RESPONSE packet to be written in one piece.

    counter: of the request it answers. failure: why it is a failure packet, or None.
    """

    counter: int
    octets: bytes = field(repr=False)
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Drop:
    """There is nothing to answer; why: for the log."""

    why: str


@dataclass(frozen=True, slots=True)
class Quit:
    """The device wants the daemon to end."""


def receive(octets: bytes) -> Task | Answer | Drop | Quit:
    """What to do about one packet from the device."""
    try:
        packet = parse_packet(octets)
    except ParseError as error:
        return Drop(f"not a packet: {error}")
    if packet.type == PacketType.QUIT:
        return Quit()
    if packet.type != PacketType.REQUEST:
        return Drop(f"a packet of type {packet.type} asks for nothing")
    if packet.body is None:
        return Drop(f"the requester of {packet.counter} has given up")
    return _receive_request(packet.counter, packet.body)


def _receive_request(counter: int, body: bytes) -> Task | Answer | Drop:
    if len(body) < MESSAGE_HEADER_SIZE:
        return Drop(f"request {counter} does not say which message context it is of")
    try:
        message = parse_message(body)
    except ParseError as error:
        # The index is in place, so the requester can be told.
        index = int.from_bytes(body[:4], sys.byteorder)
        return _failure(counter, index, body[MESSAGE_HEADER_SIZE:], str(error))
    try:
        return Task(counter, message.index, parse_request(message.data))
    except ParseError as error:
        return _failure(counter, message.index, message.data, str(error))


def perform(task: Task, key: Key) -> Answer:
    """Encrypt or decrypt with the key that was asked for."""
    request = task.request
    try:
        reply = _encrypt(key, request) if isinstance(request, Tag66) else _decrypt(key, request)
        return Answer(task.counter, _response(task.counter, task.index, reply))
    except KeyOperationError as error:
        return refuse(task, str(error))
    except Exception as error:
        # Whatever a key module does, the requester is told. Its message might tell of octets.
        return refuse(task, f"the key module failed with {type(error).__name__}")


def refuse(task: Task, why: str) -> Answer:
    """The failure packet for a request. why: for the log."""
    return _failure(task.counter, task.index, bytes((task.request.TAG,)), why)


def _encrypt(key: Key, request: Tag66) -> Tag67:
    encrypted = key.encrypt(request.content)
    if len(encrypted) > ENCRYPTED_KEY_MAX:
        raise KeyOperationError(
            f"the encrypted key would have {len(encrypted)} octets, {ENCRYPTED_KEY_MAX} are allowed"
        )
    return Tag67(STATUS_OK, encrypted)


def _decrypt(key: Key, request: Tag64) -> Tag65:
    payload = key.decrypt(request.content)
    if len(payload) > PAYLOAD_MAX:
        raise KeyOperationError(f"the payload is longer than {PAYLOAD_MAX} octets")
    return Tag65(STATUS_OK, payload)


def _failure(counter: int, index: int, tag_packet: bytes, why: str) -> Answer:
    kind = Tag67 if tag_packet[:1] == bytes((Tag66.TAG,)) else Tag65
    return Answer(counter, _response(counter, index, kind(STATUS_FAILED)), why)


def _response(counter: int, index: int, reply: TagReply) -> bytes:
    body = build_message(Message(index, build_reply(reply)))
    return build_packet(Packet(PacketType.RESPONSE, counter, body))
