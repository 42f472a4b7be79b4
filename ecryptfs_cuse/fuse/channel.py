"""The channel: our own place between the kernel and the library that serves the tree.

    the kernel's device  <-->  Channel  <-->  a socket pair  <-->  the library

Theory of operation. A request whose opcode is in the table of handlers is answered here, at once
and straight from the open file's handle; one that is in ``answers`` by what that names; any other
is passed on to the library, and its reply is passed back. What is gained:

* A READ that cannot finish is remembered, and holds no task and no thread. The handle's ``wake``
  resumes it; an INTERRUPT ends it at once, so that a killed reader dies at once. The library knows
  no interrupts, and each of its reads would hold one of its tasks.
* Readers and writers of one open file do not wait for one another: files are opened with
  FOPEN_STREAM, which the library cannot set.
* One turn of the event loop serves many requests.

Only a process's own read may wait. The kernel also reads to fill its page cache, for readahead(2),
splice(2) or a mapping: a READ of that kind would take a message away and show it to others, and
while it waited it would hold a page locked where no signal reaches. They are told apart by
FUSE_READ_LOCKOWNER. A read that is asynchronous gets no INTERRUPT; it takes O_DIRECT. Both are
refused at once.

No request ends the channel, whatever is in it and whatever a handle does: it gets an error. What
ends it is the connection.

The channel knows the FUSE protocol (abi.py), handles (node.py) and trio; not the library, not what
the handles do.
"""

import errno
import logging
import os
import socket
from collections.abc import Callable, Mapping
from itertools import count
from struct import error as StructError  # noqa: N812  # an exception, named as exceptions are

import trio

from ecryptfs_cuse.fuse import abi
from ecryptfs_cuse.fuse.abi import Opcode
from ecryptfs_cuse.fuse.greeting import amend_init
from ecryptfs_cuse.fuse.node import Handle

logger = logging.getLogger(__name__)

_BURST = 64
"""Requests served before other tasks get their turn."""

_PATIENCE = 10
"""How often in a burst to look again where no request is there: who has just been answered tends to
send the next at once, and a turn of the event loop costs more than all these looks."""

_FORWARDED_MAX = 64
"""Requests that the library may hold: their replies must fit the socket's buffer, because the
library waits until they do and we could not read while it waits. The longest reply lists a
directory, some 2 KiB; the least buffer that kernels come with has room for 99 of them."""

_SOCKET_BUFFER = 4 << 20

_GONE = (errno.ENODEV, errno.ECONNABORTED)
"""What reading gives once the connection is over: unmounted, or aborted."""

_WITHDRAWN = (errno.ENOENT, errno.EINTR)
"""What reading gives where a request was withdrawn meanwhile, or a signal came."""


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
        self._requests = memoryview(bytearray(abi.BUFFER_SIZE))
        self._replies = memoryview(bytearray(abi.REPLY_MAX))
        self._files: dict[int, _OpenFile] = {}
        self._next_file = count(1)
        self._reading: dict[int, _OpenFile] = {}  # the unique of a pending READ -> its file
        self._forwarded: dict[int, int] = {}  # what the library holds: unique -> opcode
        self._backlog: dict[int, bytes] = {}  # what is to be passed on: unique -> request
        self.answers: Mapping[int, Callable[[abi.Sender, memoryview], bytes]] = {}
        self._handlers: dict[int, Callable[[int, memoryview], None]] = {
            Opcode.READ: self._read,
            Opcode.WRITE: self._write,
            Opcode.POLL: self._poll,
            Opcode.INTERRUPT: self._interrupt,
            Opcode.RELEASE: self._release,
            # Nothing to do and nothing to answer: the nodes of a hosted tree stay where they are,
            # and the kernel is never asked for what it has cached.
            Opcode.FORGET: self._drop,
            Opcode.BATCH_FORGET: self._drop,
            Opcode.NOTIFY_REPLY: self._drop,
        }

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
        is_connected = True
        while is_connected:
            await trio.lowlevel.wait_readable(self._device)
            is_connected = self.serve_burst()

    def serve_burst(self) -> bool:
        """Serve the requests that are there, a burst at most; False once the connection is over."""
        patience = _PATIENCE
        for _ in range(_BURST):
            try:
                size = os.readv(self._device, [self._requests])
            except BlockingIOError:
                if patience == 0:
                    break
                patience -= 1
                os.sched_yield()
            except OSError as error:
                if error.errno in _WITHDRAWN:
                    continue
                if error.errno not in _GONE:
                    logger.error("cannot read requests from the kernel: %s", error.strerror)
                return False
            else:
                if size == 0:
                    return False
                self._dispatch(self._requests[:size])
        return True

    def _dispatch(self, request: memoryview) -> None:
        try:
            length, opcode, unique = abi.IN_HEADER.unpack_from(request)
        except StructError:
            length = 0
        if length != len(request) or length < abi.IN_HEADER_SIZE:
            logger.error("not a request: %d bytes", len(request))
            return
        try:
            if (handler := self._handlers.get(opcode)) is not None:
                handler(unique, request)
            elif (answer := self.answers.get(opcode)) is not None:
                sender = abi.sender_of(request)
                self._reply(unique, answer(sender, request[abi.IN_HEADER_SIZE :]))
            else:
                self._backlog[unique] = bytes(request)
                self._pass_on()
        except StructError:
            self._send(unique, -errno.EINVAL, b"")
        except Exception as error:
            self._reply_error(unique, error)

    def _read(self, unique: int, request: memoryview) -> None:
        number, offset, wanted, read_flags, _, flags = abi.READ_IN.unpack_from(
            request, abi.IN_HEADER_SIZE
        )
        file = self._file(number)
        if not read_flags & abi.READ_LOCKOWNER or flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "only a process may read, and wait for it")
        if not self._answer_read(unique, file.handle.read, wanted, offset):
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

    def _write(self, unique: int, request: memoryview) -> None:
        number, offset, length = abi.WRITE_IN.unpack_from(request, abi.IN_HEADER_SIZE)
        file = self._file(number)
        carried = request[abi.WRITE_DATA_OFFSET :]
        data = bytes(carried)
        # A write carries keys, and the buffer lives on.
        carried[:] = bytes(len(carried))
        if len(data) != length:
            raise OSError(errno.EINVAL, "a write has as many octets as it says")
        written = file.handle.write(data, offset)
        self._reply(unique, abi.WRITE_OUT.pack(written, 0))

    def _poll(self, unique: int, request: memoryview) -> None:
        number, kh, flags, _ = abi.POLL_IN.unpack_from(request, abi.IN_HEADER_SIZE)
        file = self._file(number)
        events, wait = file.handle.poll()
        if not flags & abi.POLL_SCHEDULE_NOTIFY:
            file.poller = None
        elif wait:
            # Kept after a notification: epoll polls again only when it was woken, and must be
            # woken even if a reader was pending then and ``wait`` was False.
            file.poller = kh
        self._reply(unique, abi.POLL_OUT.pack(events, 0))

    def _interrupt(self, _unique: int, request: memoryview) -> None:
        (unique,) = abi.INTERRUPT_IN.unpack_from(request, abi.IN_HEADER_SIZE)
        file = self._reading.get(unique)
        if file is not None:
            self._interrupt_read(file, unique)
        elif self._backlog.pop(unique, None) is not None:
            self._send(unique, -errno.EINTR, b"")
        # Else it is answered already, or the library is about to.

    def _interrupt_read(self, file: _OpenFile, unique: int) -> None:
        del file.readers[unique], self._reading[unique]
        self._answer_read(unique, lambda _size, _offset: file.handle.interrupt_read(), 0, 0)

    def _release(self, unique: int, request: memoryview) -> None:
        (number,) = abi.RELEASE_IN.unpack_from(request, abi.IN_HEADER_SIZE)
        file = self._file(number)
        for reader in list(file.readers):
            self._interrupt_read(file, reader)
        del self._files[number]
        file.handle.release()
        self._reply(unique, b"")

    def _drop(self, _unique: int, _request: memoryview) -> None:
        """Do nothing."""

    def _file(self, number: int) -> _OpenFile:
        try:
            return self._files[number]
        except KeyError:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None

    def _wake(self, file: _OpenFile) -> None:
        for unique, (size, offset) in list(file.readers.items()):
            if not self._answer_read(unique, file.handle.resume_read, size, offset):
                break  # where one finds nothing, nobody does
            del file.readers[unique], self._reading[unique]
        if file.poller is not None:
            self._send(0, abi.NOTIFY_POLL, abi.NOTIFY_POLL_OUT.pack(file.poller))

    def _pass_on(self) -> None:
        """Give the library what has come, as much as it may hold."""
        while self._backlog and len(self._forwarded) < _FORWARDED_MAX:
            unique, request = next(iter(self._backlog.items()))
            try:
                self._socket.send(request)
            except BlockingIOError:
                return  # the next reply makes room
            except OSError as error:
                logger.error("cannot pass requests to the library: %s", error.strerror)
                self._send(unique, -errno.EIO, b"")
            else:
                _, self._forwarded[unique], _ = abi.IN_HEADER.unpack_from(request)
            del self._backlog[unique]

    @trio.lowlevel.enable_ki_protection
    async def _pass_replies_back(self) -> None:
        is_connected = True
        while is_connected:
            await trio.lowlevel.wait_readable(self._socket)
            is_connected = self.take_reply()

    def take_reply(self) -> bool:
        """Pass back one reply that is there; False where the library has ended."""
        try:
            size = self._socket.recv_into(self._replies)
        except ConnectionError:  # it left requests unread
            size = 0
        if size == 0:
            logger.error("the library has ended")
            while self._forwarded:
                self._send(self._forwarded.popitem()[0], -errno.EIO, b"")
            return False
        self._pass_back(self._replies[:size])
        self._pass_on()
        return True

    def _pass_back(self, reply: memoryview) -> None:
        _, error, unique = abi.OUT_HEADER.unpack_from(reply)
        # A notification is no reply: nobody asked, and its unique is 0.
        if self._forwarded.pop(unique, None) == Opcode.INIT and error == 0:
            amend_init(reply, abi.OUT_HEADER.size)
        self._write_device([reply])

    def _reply(self, unique: int, data: bytes) -> None:
        self._send(unique, 0, data)

    def _reply_error(self, unique: int, error: Exception) -> None:
        number = error.errno if isinstance(error, OSError) else None
        if number is None or not 0 < number <= abi.ERROR_MAX:
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
            # ENOENT: the request or the polled file is gone; or the connection is, and the next
            # read will see it. Neither concerns the others.
            if error.errno not in (errno.ENOENT, errno.EBADF, *_GONE):
                logger.error("the kernel refused a reply: %s", error.strerror)
