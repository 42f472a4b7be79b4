"""The channel: our own place between the kernel and the library that serves the tree.

    the kernel's device  <-->  Channel  <-->  a socket pair  <-->  the library

Theory of operation. A request whose opcode is in the table of handlers is answered here, at once
and straight from the open file's handle; any other is passed on to the library, and its reply is
passed back. What the table gains:

* A READ that cannot finish is remembered, and holds no task and no thread. The handle's ``wake``
  resumes it; an INTERRUPT ends it at once, so that a killed reader dies at once. The library knows
  no interrupts, and each of its reads would hold one of its tasks.
* Readers and writers of one open file do not wait for one another: replies to OPEN get
  FOPEN_STREAM on their way back, which the library cannot set.
* One turn of the event loop serves many requests.

Files may close in great numbers at once, and the kernel sends only so many RELEASE requests at a
time; a later OPEN would overtake the others. So the reply to INIT gets the largest max_background.

The channel knows the FUSE protocol (abi.py), handles (node.py) and trio; not the library, not what
the handles do.
"""

import errno
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from struct import pack_into

import trio

from ecryptfs_cuse.fuse import abi
from ecryptfs_cuse.fuse.abi import Opcode
from ecryptfs_cuse.fuse.node import Handle

logger = logging.getLogger(__name__)

_BURST = 64
"""Requests served before other tasks get their turn."""

_PATIENCE = 10
"""How often in a burst to look again where no request is there: who has just been answered tends to
send the next at once, and a turn of the event loop costs more than all these looks."""

_FORWARDED_MAX = 16
"""Requests that the library may hold: their replies must fit the socket's buffer, because the
library writes them without waiting and we could not read while it waits."""

_SOCKET_BUFFER = 4 << 20


class _OpenFile:
    """What the channel keeps for an open file."""

    __slots__ = ("handle", "poller", "readers")

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.readers: dict[int, tuple[int, int]] = {}  # pending READs: unique -> (size, offset)
        self.poller: int | None = None  # kh, while somebody polls the file


class Channel:
    """Serves one FUSE connection, until it is unmounted.

    ``device`` is the descriptor of the kernel's device; the channel sets it non-blocking, and
    leaves it open. ``library`` is the end of the socket pair to give to the library.
    """

    def __init__(self, device: int) -> None:
        self._device = device
        os.set_blocking(device, False)
        self._socket, self.library = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._socket, self.library):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
        self._socket.setblocking(False)
        self._buffer = bytearray(abi.BUFFER_SIZE)
        self._view = memoryview(self._buffer)
        self._files: dict[int, _OpenFile] = {}
        self._next_file = count(1)
        self._reading: dict[int, _OpenFile] = {}  # the unique of a pending READ -> its file
        self._forwarded = 0
        self._backlog: deque[bytes] = deque()
        self._amendments: dict[int, Callable[[bytearray, int], None]] = {}
        self._handlers: dict[int, Callable[[int, int], None]] = {
            Opcode.READ: self._read,
            Opcode.WRITE: self._write,
            Opcode.POLL: self._poll,
            Opcode.INTERRUPT: self._interrupt,
            Opcode.RELEASE: self._release,
            Opcode.FORGET: self._forget,
            Opcode.BATCH_FORGET: self._forget,
        }
        self._to_amend = {Opcode.INIT: _raise_max_background, Opcode.OPEN: _make_stream}

    def add(self, handle: Handle) -> int:
        """Take charge of a handle; the file handle number (fh) for the reply to its OPEN."""
        number = next(self._next_file)
        file = self._files[number] = _OpenFile(handle)
        handle.wake = lambda: self._wake(file)
        return number

    async def run(self) -> None:
        """Serve until the file system is unmounted."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pass_replies_back)
            await self._serve()
            nursery.cancel_scope.cancel()

    def close(self) -> None:
        """Close the socket pair. Files that are still open are released."""
        self._socket.close()
        self.library.close()
        while self._files:
            self._files.popitem()[1].handle.release()

    async def _serve(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._device)
            for size in self._requests():
                if size == 0:
                    return
                _, opcode, unique = abi.IN_HEADER.unpack_from(self._buffer)
                handler = self._handlers.get(opcode)
                if handler is not None:
                    handler(unique, size)
                else:
                    self._forward(opcode, unique, size)

    def _requests(self) -> Iterator[int]:
        """Read request after request into the buffer: the size of each; 0 at the end."""
        patience = _PATIENCE
        for _ in range(_BURST):
            try:
                yield os.readv(self._device, [self._view])
            except BlockingIOError:
                if patience == 0:
                    return
                patience -= 1
                os.sched_yield()
            except OSError as error:
                if error.errno in (errno.ENODEV, errno.ECONNABORTED):
                    yield 0
                    return
                if error.errno not in (errno.ENOENT, errno.EINTR):  # ENOENT: it was withdrawn
                    raise

    def _read(self, unique: int, size: int) -> None:
        number, offset, wanted = abi.READ_IN.unpack_from(self._buffer, abi.IN_HEADER_SIZE)
        file = self._files.get(number)
        if file is None:
            self._forward(Opcode.READ, unique, size)
        elif not self._answer_read(unique, file.handle.read, wanted, offset):
            file.readers[unique] = (wanted, offset)
            self._reading[unique] = file

    def _answer_read(
        self, unique: int, read: Callable[[int, int], bytes | None], size: int, offset: int
    ) -> bool:
        try:
            data = read(size, offset)
        except Exception as error:
            self._reply_error(unique, error)
        else:
            if data is None:
                return False
            self._reply(unique, data)
        return True

    def _write(self, unique: int, size: int) -> None:
        number, offset, length = abi.WRITE_IN.unpack_from(self._buffer, abi.IN_HEADER_SIZE)
        file = self._files.get(number)
        if file is None:
            self._forward(Opcode.WRITE, unique, size)
            return
        start = abi.WRITE_DATA_OFFSET
        data = bytes(self._view[start : start + length])
        # A write carries keys, and the buffer lives on.
        self._buffer[start : start + length] = bytes(length)
        try:
            written = file.handle.write(data, offset)
        except Exception as error:
            self._reply_error(unique, error)
        else:
            self._reply(unique, abi.WRITE_OUT.pack(written, 0))

    def _poll(self, unique: int, size: int) -> None:
        number, kh, flags, _ = abi.POLL_IN.unpack_from(self._buffer, abi.IN_HEADER_SIZE)
        file = self._files.get(number)
        if file is None:
            self._forward(Opcode.POLL, unique, size)
            return
        try:
            events, wait = file.handle.poll()
        except Exception as error:
            self._reply_error(unique, error)
            return
        if not flags & abi.POLL_SCHEDULE_NOTIFY:
            file.poller = None
        elif wait:
            # Kept after a notification: epoll polls again only when it was woken, and must be
            # woken even if a reader was pending then and ``wait`` was False.
            file.poller = kh
        self._reply(unique, abi.POLL_OUT.pack(events, 0))

    def _interrupt(self, _unique: int, _size: int) -> None:
        (unique,) = abi.INTERRUPT_IN.unpack_from(self._buffer, abi.IN_HEADER_SIZE)
        file = self._reading.pop(unique, None)
        if file is None:
            return  # answered already, or a request that the library is about to answer
        del file.readers[unique]
        self._answer_read(unique, lambda _size, _offset: file.handle.interrupt_read(), 0, 0)

    def _release(self, unique: int, size: int) -> None:
        (number,) = abi.RELEASE_IN.unpack_from(self._buffer, abi.IN_HEADER_SIZE)
        file = self._files.pop(number, None)
        if file is None:
            self._forward(Opcode.RELEASE, unique, size)
            return
        try:
            file.handle.release()
        except Exception as error:
            self._reply_error(unique, error)
        else:
            self._reply(unique, b"")

    def _forget(self, _unique: int, _size: int) -> None:
        """Nothing to do and nothing to answer: the nodes of a hosted tree stay where they are."""

    def _wake(self, file: _OpenFile) -> None:
        for unique, (size, offset) in list(file.readers.items()):
            if self._answer_read(unique, file.handle.resume_read, size, offset):
                del file.readers[unique], self._reading[unique]
        if file.poller is not None:
            self._send(0, abi.NOTIFY_POLL, abi.NOTIFY_POLL_OUT.pack(file.poller))

    def _forward(self, opcode: int, unique: int, size: int) -> None:
        amendment = self._to_amend.get(opcode)  # type: ignore[call-overload]  # any int may be asked for
        if amendment is not None:
            self._amendments[unique] = amendment
        if self._forwarded < _FORWARDED_MAX:
            self._pass_on(self._view[:size])
        else:
            self._backlog.append(bytes(self._view[:size]))

    def _pass_on(self, request: bytes | memoryview) -> None:
        _, _, unique = abi.IN_HEADER.unpack_from(request)
        try:
            self._socket.send(request)
        except OSError as error:
            self._amendments.pop(unique, None)
            self._reply_error(unique, error)
        else:
            self._forwarded += 1

    @trio.lowlevel.enable_ki_protection
    async def _pass_replies_back(self) -> None:
        buffer = bytearray(abi.BUFFER_SIZE)
        view = memoryview(buffer)
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            size = self._socket.recv_into(buffer)
            if size == 0:
                return
            self._forwarded -= 1
            _, error, unique = abi.OUT_HEADER.unpack_from(buffer)
            amendment = self._amendments.pop(unique, None)
            if amendment is not None and error == 0:
                amendment(buffer, abi.OUT_HEADER.size)
            self._write_device([view[:size]])
            if self._backlog:
                self._pass_on(self._backlog.popleft())

    def _reply(self, unique: int, data: bytes) -> None:
        self._send(unique, 0, data)

    def _reply_error(self, unique: int, error: Exception) -> None:
        number = error.errno if isinstance(error, OSError) else None
        if number is None:
            logger.error("a handle failed", exc_info=error)
            number = errno.EIO
        self._send(unique, -number, b"")

    def _send(self, unique: int, code: int, data: bytes) -> None:
        header = abi.OUT_HEADER.pack(abi.OUT_HEADER.size + len(data), code, unique)
        self._write_device([header, data])

    def _write_device(self, buffers: list[bytes | memoryview]) -> None:
        try:
            os.writev(self._device, buffers)
        except OSError as error:
            # ENOENT: the request or the polled file is gone; ENODEV: the mount is, and _serve
            # will see it; EBADF: so is the connection. None concerns the others.
            if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EBADF):
                logger.error("the kernel refused a reply: %s", os.strerror(error.errno or 0))


def _raise_max_background(reply: bytearray, _body: int) -> None:
    pack_into("=H", reply, abi.INIT_OUT_MAX_BACKGROUND, abi.MAX_BACKGROUND)


def _make_stream(reply: bytearray, body: int) -> None:
    number, flags = abi.OPEN_OUT.unpack_from(reply, body)
    if flags & abi.FOPEN_NONSEEKABLE:
        abi.OPEN_OUT.pack_into(reply, body, number, flags | abi.FOPEN_STREAM)
