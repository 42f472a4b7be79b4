"""Files that hold a text: version, parameters, status."""

import errno
import os
from collections.abc import Callable

from ecryptfs_cuse.core.errors import DeviceError
from ecryptfs_cuse.fuse.caller import Caller
from ecryptfs_cuse.fuse.node import File, Handle
from ecryptfs_cuse.nodes.quota import Quota

TEXTS_MAX = 4 << 20
"""Octets of texts of one file that are kept for those who have it open, all users together."""


class TextFile(File):
    """A file to read. ``text`` is asked at each open, so that one open file tells one story.

    Open files share the text until it changes. ``files_per_user`` limits how many a user may have
    open. Where the texts of all come to more than TEXTS_MAX, the oldest are forgotten: whoever has
    not read one to its end by then is told ESTALE, and opens the file again.
    """

    def __init__(self, text: Callable[[], str], files_per_user: int = 1024) -> None:
        super().__init__(0o444)
        self._text = text
        self._kept: list[_Text] = []  # the oldest first, the latest last
        self._quota = Quota(files_per_user)

    def open(self, caller: Caller, flags: int) -> Handle:
        """Refuses to open for writing, as sysfs does, even to root.

        Raises DeviceError EACCES for that, EMFILE where the user has too many open.
        """
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise DeviceError(errno.EACCES)
        close = self._quota.take(caller.uid)
        octets = self._text().encode()
        if not self._kept or octets != self._kept[-1].octets:
            self._keep(_Text(octets))
        return _TextHandle(self._kept[-1], close)

    def _keep(self, text: "_Text") -> None:
        self._kept = [*(each for each in self._kept if each.readers), text]
        size = sum(each.size for each in self._kept)
        while size > TEXTS_MAX and len(self._kept) > 1:
            oldest = self._kept.pop(0)
            oldest.octets = None
            size -= oldest.size


class _Text:
    """A text, None once it is forgotten, and how many have it open."""

    def __init__(self, octets: bytes) -> None:
        self.octets: bytes | None = octets
        self.size = len(octets)
        self.readers = 0


class _TextHandle(Handle):
    seekable = True

    def __init__(self, text: _Text, close: Callable[[], None]) -> None:
        self._text = text
        self._close = close
        text.readers += 1

    def read(self, size: int, offset: int) -> bytes:
        if self._text.octets is None:
            raise DeviceError(errno.ESTALE, "it was open for too long: open it again")
        return self._text.octets[offset : offset + size]

    def write(self, data: bytes, offset: int) -> int:
        raise DeviceError(errno.EBADF)

    def release(self) -> None:
        self._text.readers -= 1
        self._close()
