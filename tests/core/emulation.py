"""What the tests of core/ share: the emulated kernel side with nobody around it.

Packets are made and taken apart with ``struct`` here, not with the wire layer: what the daemon
sees is octets.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from ecryptfs_cuse.core.errors import DeviceError
from ecryptfs_cuse.core.messaging import Daemon, Identity, Messaging, Request
from ecryptfs_cuse.core.miscdev import Miscdev

USER = Identity(1000, 4026531837)
OTHER_USER = Identity(1001, 4026531837)
OTHER_NAMESPACE = Identity(1000, 4026532000)

ENOUGH = 4096
"""A count for read that every packet fits."""


@dataclass(frozen=True)
class Seen:
    """A REQUEST as a daemon sees it; index and data are None where there is no message."""

    counter: int
    index: int | None = None
    data: bytes | None = None


def seen(octets: bytes | None) -> Seen:
    """Take apart what a read returned."""
    assert octets is not None, "the read blocks"
    assert octets, "the read returned nothing"
    kind, counter = struct.unpack_from(">BI", octets)
    assert kind == 102
    if len(octets) == 5:
        return Seen(counter)
    length, data = octets[5], octets[6:]
    if length >= 192:
        length, data = (length - 192) * 256 + octets[6] + 192, octets[7:]
    assert len(data) == length
    index, data_len = struct.unpack_from("=II", data)
    assert data_len == length - 8
    return Seen(counter, index, data[8:])


def response(counter: int, index: int, data: bytes = b"answer") -> bytes:
    """A RESPONSE, the way ecryptfsd writes it."""
    size = len(data) + 8
    length = (
        bytes((size,)) if size < 192 else bytes((192 + (size - 192) // 256, (size - 192) % 256))
    )
    return struct.pack(">BI", 103, counter) + length + struct.pack("=II", index, len(data)) + data


@contextmanager
def refused(number: int) -> Iterator[None]:
    """The block raises DeviceError with this errno."""
    with pytest.raises(DeviceError) as caught:
        yield
    assert caught.value.errno == number


class Device:
    """Messaging and Miscdev, and a record of whom they woke."""

    def __init__(self, message_buf_len: int = 32, contexts_per_user: int | None = None) -> None:
        self.messaging = Messaging(message_buf_len, contexts_per_user)
        self.miscdev = Miscdev(self.messaging)
        self.woken: list[Identity] = []
        self.finished: list[int] = []

    def open(self, identity: Identity = USER) -> Daemon:
        return self.miscdev.open(identity, lambda: self.woken.append(identity))

    def close(self, daemon: Daemon) -> None:
        self.miscdev.release(daemon)

    def send(self, data: bytes = b"question", identity: Identity = USER) -> Request:
        """Raise a request; its counter is in ``finished`` when it is over."""
        counter = self.messaging.counter + 1
        return self.messaging.send_message(identity, data, lambda: self.finished.append(counter))

    def read(self, daemon: Daemon, count: int = ENOUGH) -> bytes | None:
        return self.miscdev.read(daemon, count)

    def resume(self, daemon: Daemon, count: int = ENOUGH) -> bytes | None:
        return self.miscdev.resume_read(daemon, count)

    def interrupt(self, daemon: Daemon) -> bytes:
        return self.miscdev.interrupt_read(daemon)

    def poll(self, daemon: Daemon) -> tuple[int, bool]:
        return self.miscdev.poll(daemon)

    def write(self, daemon: Daemon, octets: bytes) -> int:
        return self.miscdev.write(daemon, octets)

    def next_request(self, daemon: Daemon) -> Seen:
        return seen(self.read(daemon))

    def answer(self, daemon: Daemon, request: Seen, data: bytes = b"answer") -> None:
        assert request.index is not None
        octets = response(request.counter, request.index, data)
        assert self.write(daemon, octets) == len(octets)

    def exchange(self, daemon: Daemon) -> Seen:
        """A request from beginning to end: what the daemon saw of it."""
        request = self.send()
        asked = self.next_request(daemon)
        self.answer(daemon, asked)
        assert request.take() == b"answer"
        return asked
