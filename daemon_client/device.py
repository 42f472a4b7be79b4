"""The open device, as system calls that block: for worker threads, never for an event loop's.

Why a read is preceded by a poll: the device's read blocks even with O_NONBLOCK, and only a poll can
be woken by another descriptor.
"""

import contextlib
import errno
import os
import select
import threading
from collections.abc import Iterator

from ecryptfs_cuse.wire.length import TWO_OCTETS_MAX
from ecryptfs_cuse.wire.packet import HEADER_SIZE

PACKET_MAX = HEADER_SIZE + 2 + TWO_OCTETS_MAX
"""Octets of the longest packet. A read with less room would return nothing, again and again."""

EMPTY_READS_MAX = 100
"""In a row. A signal or a second reader gives one now and then, a device that is gone no other."""

_GONE = (errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV)

_CANNOT_OPEN = {
    errno.EINVAL: "this user has a daemon already: stop that one first",
    errno.ENOENT: "it does not exist: load the kernel's module with 'modprobe ecryptfs', or mount "
    "a device with 'ecryptfs-cuse mount' and give its path",
    errno.EACCES: "permission denied: run as its owner, or have root chmod or chown it",
    errno.EPERM: "permission denied: run as its owner, or have root chmod or chown it",
    errno.EISDIR: "it is a directory: give the path of the device in it, dev/ecryptfs",
    errno.ENODEV: "the device is being taken away",
    errno.ENXIO: "no driver serves it: load the kernel's module with 'modprobe ecryptfs'",
    errno.ENOTCONN: "its server has died: unmount it, and mount it again",
    errno.ECONNABORTED: "its server has died: unmount it, and mount it again",
}


class DaemonError(Exception):
    """The daemon cannot go on; the message says why."""


class DeviceOpenError(DaemonError):
    """The device cannot be opened."""


class DeviceGoneError(DaemonError):
    """The device is not there any more."""


class Device:
    """The device at ``path``; opened by ``open``. Every method but ``wake`` may block.

    Calls may run in several threads. The last of them to return closes the descriptor, if ``close``
    has been called: a call that blocks for good must never find another file under its number.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._descriptor = -1
        self._wake_up = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Lock()
        self._calls = 0
        self._is_closed = False

    def open(self) -> None:
        """Open the device, which registers the calling user's daemon. Raises DeviceOpenError."""
        with self._call():
            try:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            except OSError as error:
                why = _CANNOT_OPEN.get(error.errno or 0, error.strerror)
                raise DeviceOpenError(f"cannot open {self.path}: {why}") from None
            if _has_content(descriptor):
                os.close(descriptor)
                raise DeviceOpenError(f"{self.path} is a file, not an eCryptfs device")
            self._descriptor = descriptor

    def receive(self) -> bytes | None:
        """Wait for the next packet; None once ``wake`` has been called.

        Raises DeviceGoneError, DaemonError.
        """
        with self._call():
            poll = select.poll()
            poll.register(self._wake_up, select.POLLIN)
            poll.register(self._descriptor, select.POLLIN)
            for _ in range(EMPTY_READS_MAX):
                events = dict(poll.poll())
                if self._wake_up in events:
                    return None
                if not events[self._descriptor] & select.POLLIN:
                    raise DeviceGoneError(
                        f"{self.path} is gone: it was unmounted, or its server has ended"
                    )
                packet = self._read()
                if packet:
                    return packet
        raise DeviceGoneError(
            f"{self.path} says that there is something to read and gives nothing: "
            "it is gone, or it is not an eCryptfs device"
        )

    def _read(self) -> bytes:
        try:
            return os.read(self._descriptor, PACKET_MAX)
        except OSError as error:
            if error.errno in _GONE:
                raise DeviceGoneError(f"{self.path} is gone: {error.strerror}") from None
            raise DaemonError(f"cannot read {self.path}: {error.strerror}") from None

    def send(self, packet: bytes) -> None:
        """Write one packet. Raises OSError: EINVAL where the device does not want it."""
        with self._call():
            os.write(self._descriptor, packet)

    def wake(self) -> None:
        """End the ``receive`` that waits, and any later one. Does not block."""
        with self._lock:
            if self._wake_up >= 0:
                os.eventfd_write(self._wake_up, 1)

    def leave(self, packet: bytes) -> None:
        """Write a last packet, if the device still takes one, and close it."""
        with self._call():
            # Where another call has not returned, this one would not either.
            if self._calls == 1 and self._descriptor >= 0:
                with contextlib.suppress(OSError):
                    os.write(self._descriptor, packet)
            self._is_closed = True

    @contextlib.contextmanager
    def _call(self) -> Iterator[None]:
        with self._lock:
            if self._is_closed:
                raise DaemonError(f"{self.path} is closed")
            self._calls += 1
        try:
            yield
        finally:
            with self._lock:
                self._calls -= 1
                is_last = self._is_closed and self._calls == 0
            if is_last:
                self._close()

    def _close(self) -> None:
        with self._lock:
            wake_up, self._wake_up = self._wake_up, -1
            os.close(wake_up)
        if self._descriptor >= 0:
            # A FUSE file system may report the failure of its server here.
            with contextlib.suppress(OSError):
                os.close(self._descriptor)


def _has_content(descriptor: int) -> bool:
    """Whether it is a file that HELO would overwrite; a device has no size, however it is made."""
    try:
        return os.fstat(descriptor).st_size > 0
    except OSError:
        return False
