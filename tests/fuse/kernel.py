"""A stand-in for the kernel: one end of a socket pair, whose other end a channel serves.

Everything happens when it is told to: ``serve`` lets the channel take what was sent.
"""

import logging
import os
import socket
from itertools import count
from struct import pack

from ecryptfs_cuse.core.messaging import Identity, Messaging
from ecryptfs_cuse.core.miscdev import Miscdev
from ecryptfs_cuse.fuse import abi
from ecryptfs_cuse.fuse.abi import Opcode
from ecryptfs_cuse.fuse.caller import Caller, own_user_namespace
from ecryptfs_cuse.fuse.channel import Channel
from ecryptfs_cuse.nodes.device import DeviceFile
from tests.closing import Closing

LOCKOWNER = abi.READ_LOCKOWNER
NO_REPLY = (Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT, Opcode.NOTIFY_REPLY)
LOOKUP = 1
"""An opcode that the channel has no handler for."""


class Kernel(Closing):
    """A kernel, a channel, and a library that refuses what it gets with ENOSYS when told to."""

    def __init__(self) -> None:
        self._socket, self._device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        self.channel = Channel(self._device.fileno())
        self.channel.library.setblocking(False)
        self.messaging = Messaging(4)
        self._miscdev = Miscdev(self.messaging)
        self._uniques = count(2, 2)
        self.replies: dict[int, list[tuple[int, bytes]]] = {}
        self.complaints: list[str] = []

    def close(self) -> None:
        """Close everything."""
        self.channel.close()
        self._device.close()
        self._socket.close()

    def open_device(self, uid: int) -> int:
        """Open the device as a user: the number of the open file (fh)."""
        caller = Caller(uid, own_user_namespace())
        return self.channel.add(DeviceFile(self._miscdev, 0o600).open(caller, os.O_RDWR))

    def ask(self, uid: int, data: bytes) -> None:
        """Raise a request for the daemon of a user, at once."""
        identity = Identity(uid, own_user_namespace())
        self.messaging.send_message(identity, data, lambda: None)
        self.receive()

    def send(self, opcode: int, body: bytes, length: int | None = None) -> int:
        """Send a request, and have it served: its unique. ``length`` as the header says."""
        unique = self.post(opcode, body, length)
        self.serve()
        return unique

    def post(self, opcode: int, body: bytes, length: int | None = None) -> int:
        """Send a request that waits to be served: its unique."""
        unique = next(self._uniques)
        size = abi.IN_HEADER_SIZE + len(body) if length is None else length
        self.post_octets(pack("=IIQQIIII", size, opcode, unique, 1, 0, 0, 0, 0) + body)
        return unique

    def post_octets(self, octets: bytes) -> None:
        """Send what need not be a request."""
        self._socket.send(octets)

    def serve(self) -> None:
        """Let the channel serve what was sent, and take its replies."""
        assert self.channel.serve_burst()
        self.receive()

    def read(self, file: int, size: int = 1000, flags: int = LOCKOWNER, mode: int = 0) -> int:
        """READ."""
        return self.send(Opcode.READ, pack("=QQIIQII", file, 0, size, flags, 0, mode, 0))

    def write(self, file: int, data: bytes, length: int | None = None) -> int:
        """WRITE; ``length`` as fuse_write_in says."""
        size = len(data) if length is None else length
        return self.send(Opcode.WRITE, pack("=QQIIQII", file, 0, size, 0, 0, 0, 0) + data)

    def poll(self, file: int, kh: int = 7, flags: int = abi.POLL_SCHEDULE_NOTIFY) -> int:
        """POLL."""
        return self.send(Opcode.POLL, pack("=QQII", file, kh, flags, 0))

    def interrupt(self, unique: int) -> None:
        """INTERRUPT of a request."""
        self.send(Opcode.INTERRUPT, pack("=Q", unique))

    def release(self, file: int) -> int:
        """RELEASE."""
        return self.send(Opcode.RELEASE, pack("=QIIQ", file, 0, 0, 0))

    def refuse_forwarded(self) -> int:
        """Let the library refuse with ENOSYS what it got: how many requests."""
        refused = 0
        while True:
            try:
                request = self.channel.library.recv(1 << 20)
            except BlockingIOError:
                return refused
            _, _, unique = abi.IN_HEADER.unpack_from(request)
            self.channel.library.send(abi.OUT_HEADER.pack(abi.OUT_HEADER.size, -38, unique))
            self.channel.take_reply()
            self.receive()
            refused += 1

    def answer(self, unique: int) -> tuple[int, bytes] | None:
        """The one reply to a request: errno (0 or negative) and data; None where there is none."""
        replies = self.replies.get(unique, [])
        assert len(replies) <= 1, f"answered {len(replies)} times"
        return replies[0] if replies else None

    def receive(self) -> None:
        """Take the replies that are there."""
        while True:
            try:
                octets = self._socket.recv(1 << 20)
            except BlockingIOError:
                return
            length, error, unique = abi.OUT_HEADER.unpack_from(octets)
            assert length == len(octets)
            self.replies.setdefault(unique, []).append((error, octets[abi.OUT_HEADER.size :]))


class Complaints(logging.Handler):
    """What the channel logs as an error: nothing but what a test expects."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.texts.append(record.getMessage())
