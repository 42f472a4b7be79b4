"""The daemon's side of a case: one open device, and what can be read from it."""

import errno
import os
import select
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from ecryptfs_cuse.wire.packet import (
    Message,
    Packet,
    PacketType,
    build_message,
    build_packet,
    parse_message,
    parse_packet,
)
from ecryptfs_cuse.wire.tags import (
    Tag65,
    Tag66,
    Tag67,
    TagRequest,
    build_reply,
    parse_request,
)
from tests.client import Client, Pending

Value = object
"""What comes out of a case: an errno's name, a count, octets, or a tuple of such."""

BLOCKS = "blocks"
"""The value of a call that does not return."""

READABLE = select.POLLIN | select.POLLRDNORM
"""What poll reports of a packet that can be read."""

PACKET_MAX = 4096
"""A count that no packet of the suite exceeds."""

_REQUEST_MIN = 14

_A_WHILE = 0.5  # seconds: what takes longer blocks


def attempt(call: Callable[..., Value], *arguments: object) -> Value:
    """What a call returns, or the name of the errno that it raises."""
    try:
        return call(*arguments)
    except OSError as error:
        if error.errno is None:
            raise
        return errno.errorcode[error.errno]


def attempt_blocking(pending: Pending, seconds: float = _A_WHILE) -> Value:
    """What a started call returns or raises, or BLOCKS."""
    try:
        return attempt(pending.result, seconds)
    except TimeoutError:
        return BLOCKS


@dataclass(frozen=True)
class Question:
    """A REQUEST that a daemon has read."""

    counter: int
    index: int
    data: bytes

    @staticmethod
    def parse(octets: Value) -> "Question":
        """Take apart what a read has returned."""
        assert isinstance(octets, bytes), octets
        packet = parse_packet(octets)
        assert packet.type == PacketType.REQUEST, packet
        assert packet.body is not None, packet
        message = parse_message(packet.body)
        return Question(packet.counter, message.index, message.data)

    @property
    def request(self) -> TagRequest:
        """The tag packet in it."""
        return parse_request(self.data)

    @property
    def good_answer(self) -> bytes:
        """A tag packet that answers it, by an encryption that is its own inverse."""
        request = self.request
        content = bytes(octet ^ 0x5A for octet in request.content)
        return build_reply(Tag67(0, content) if isinstance(request, Tag66) else Tag65(0, content))

    def response(self, data: bytes | None = None) -> bytes:
        """The RESPONSE with this answer, or with a good one. ``replace`` makes another question."""
        message = build_message(Message(self.index, self.good_answer if data is None else data))
        return build_packet(Packet(PacketType.RESPONSE, self.counter, message))


class Daemon:
    """The device, opened by a client. Closed at the end of a ``with`` block."""

    def __init__(self, client: Client, path: str, flags: int = os.O_RDWR) -> None:
        self.client = client
        self.descriptor: int = client.call("os.open", path, flags)

    def read(self, count: int = PACKET_MAX) -> Value:
        """read(2): octets, or the errno's name. There is to be something to read."""
        return attempt(self.client.call, "raw_read", self.descriptor, count)

    def start_read(self, count: int = PACKET_MAX) -> Pending:
        """read(2) in a thread of its own."""
        return self.client.start("raw_read", self.descriptor, count)

    def write(self, octets: bytes) -> Value:
        """write(2): the count, or the errno's name."""
        return attempt(self.client.call, "os.write", self.descriptor, octets)

    def poll(self, events: int = 0xFFFF, seconds: float = 0.0) -> int:
        """poll(2): the events."""
        found: int = self.client.call("poll", self.descriptor, events, seconds)
        return found

    def call(self, name: str, *arguments: Any) -> Value:
        """Another function of the client's on this descriptor: its result, or the errno's name."""
        return attempt(self.client.call, name, self.descriptor, *arguments)

    def question(self) -> Question:
        """Read the next REQUEST, waiting for it."""
        return Question.parse(self.read())

    def answer(self, question: Question, data: bytes | None = None) -> Value:
        """Write the RESPONSE with ``data``, or with a good answer."""
        return self.write(question.response(data))

    def feed(self, ask: Callable[[], object], *reads: Pending) -> None:
        """End reads that block, with a message each that ``ask`` raises; all are answered then."""
        blocked = [read for read in reads if attempt_blocking(read, 0.0) == BLOCKS]
        taken: list[Value] = []
        while blocked:
            ask()
            octets: Value = BLOCKS
            while octets == BLOCKS:
                for read in blocked:
                    octets = attempt_blocking(read, 0.01)
                    if octets != BLOCKS:
                        blocked.remove(read)
                        break
            taken.append(octets)
        for octets in taken:
            # Too small a buffer leaves the message where it is.
            is_whole = isinstance(octets, bytes) and len(octets) >= _REQUEST_MIN
            self.answer(Question.parse(octets) if is_whole else self.question())

    def passed_to(self, client: Client) -> "Daemon":
        """The same open device in another process too, by way of a socket."""
        path = f"{client.call('make_directory')}/socket"
        client.call("listen", path)
        receiving = client.start("receive_descriptor", path)
        self.client.call("send_descriptor", path, self.descriptor)
        passed = copy(self)
        passed.client, passed.descriptor = client, receiving.result()
        return passed

    def close(self) -> None:
        """close(2); a second time does nothing."""
        if self.descriptor >= 0:
            self.client.call("os.close", self.descriptor)
            self.descriptor = -1

    def __enter__(self) -> "Daemon":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # After a failure, System.settle closes it in its time: a message may still be queued.
        if error is None:
            self.close()
