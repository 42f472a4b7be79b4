"""Files that hold a text: version, parameters, status."""

import errno
import os
from collections.abc import Callable

from ecryptfs_cuse.core.errors import DeviceError
from ecryptfs_cuse.fuse.caller import Caller
from ecryptfs_cuse.fuse.node import File, Handle
from ecryptfs_cuse.nodes.quota import Quota


class TextFile(File):
    """A file to read. ``text`` is asked at each open, so that one open file tells one story.

    Open files share the text until it changes. ``files_per_user`` limits how many a user may have
    open.
    """

    def __init__(self, text: Callable[[], str], files_per_user: int = 1024) -> None:
        super().__init__(0o444)
        self._text = text
        self._latest = b""
        self._quota = Quota(files_per_user)

    def open(self, caller: Caller, flags: int) -> Handle:
        """Refuses to open for writing, as sysfs does, even to root.

        Raises DeviceError EACCES for that, EMFILE where the user has too many open.
        """
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise DeviceError(errno.EACCES)
        close = self._quota.take(caller.uid)
        octets = self._text().encode()
        if octets != self._latest:
            self._latest = octets
        return _TextHandle(self._latest, close)


class _TextHandle(Handle):
    seekable = True

    def __init__(self, octets: bytes, close: Callable[[], None]) -> None:
        self._octets = octets
        self._close = close

    def read(self, size: int, offset: int) -> bytes:
        return self._octets[offset : offset + size]

    def write(self, data: bytes, offset: int) -> int:
        raise DeviceError(errno.EBADF)

    def release(self) -> None:
        self._octets = b""
        self._close()
