"""Files that hold a text: version, parameters, status."""

import errno
import os
from collections.abc import Callable

from ecryptfs_cuse.core.errors import DeviceError
from ecryptfs_cuse.fuse.caller import Caller
from ecryptfs_cuse.fuse.node import File, Handle


class TextFile(File):
    """A file to read. ``text`` is asked at each open, so that one open file tells one story."""

    def __init__(self, text: Callable[[], str]) -> None:
        super().__init__(0o444)
        self._text = text

    def open(self, caller: Caller, flags: int) -> Handle:
        """Refuses to open for writing, as sysfs does, even to root."""
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise DeviceError(errno.EACCES)
        return _TextHandle(self._text().encode())


class _TextHandle(Handle):
    seekable = True

    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    def read(self, size: int, offset: int) -> bytes:
        return self._octets[offset : offset + size]

    def write(self, data: bytes, offset: int) -> int:
        raise DeviceError(errno.EBADF)
