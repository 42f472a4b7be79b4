"""What a hosted tree is made of: directories, files, and the handles that files open into.

No method here ever blocks. A read that finds nothing returns None and stays pending: the transport
resumes it after the handle has called its ``wake``, or interrupts it when a signal ends the read.
A method refuses by raising OSError; its errno goes to the caller.
"""

import errno
import os
import select
import stat
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ecryptfs_cuse.fuse.caller import Caller

BLOCK_SIZE = 4096
"""What stat(2) says of every node: octets for one read or write."""


@dataclass
class Attributes:
    """What chmod, chown and utime change. Times are in nanoseconds since the epoch."""

    mode: int
    uid: int
    gid: int
    atime_ns: int = field(default_factory=time.time_ns)
    mtime_ns: int = field(default_factory=time.time_ns)
    ctime_ns: int = field(default_factory=time.time_ns)


class Node:
    """Something with a name in the tree."""

    def __init__(self, mode: int, uid: int | None = None, gid: int | None = None) -> None:
        self.attributes = Attributes(
            mode, os.geteuid() if uid is None else uid, os.getegid() if gid is None else gid
        )


class Directory(Node):
    """A directory whose entries never change.

    Everybody passes through it, but only its owner lists it: while a list is written into memory
    that never comes, the kernel keeps the directory locked, and nobody finds anything in it.
    """

    def __init__(self, children: Mapping[str, Node]) -> None:
        super().__init__(stat.S_IFDIR | 0o711)
        self.children = dict(children)


class Users(Directory):
    """A directory with a directory for each user, named by the uid: all are copies of ``home``.

    What the kernel keeps for an inode, all who open it share: its page cache, its size, and its
    lock, under which a write faults its buffer in, from memory that may never come. Strangers must
    not share one. So each has inodes of their own, which nobody else reaches. Lists nobody.
    """

    def __init__(self, home: Directory) -> None:
        super().__init__({})
        self.home = home


class Link(Node):
    """A symbolic link from the root to ``path`` in the directory that the caller has in ``users``.

    One name that stood for another inode with each caller would do as well, but the kernel looks a
    name up for one caller after the other, and for all who wait once more when one has succeeded.
    """

    def __init__(self, users: str, path: str) -> None:
        super().__init__(stat.S_IFLNK | 0o777)
        self._users = users
        self._path = path

    def target(self, uid: int) -> str:
        """Where it leads the user ``uid``."""
        return f"{self._users}/{uid}/{self._path}"


class File(Node):
    """A regular file; what it does is in the handles it opens into."""

    def __init__(self, mode: int, uid: int | None = None, gid: int | None = None) -> None:
        super().__init__(stat.S_IFREG | mode, uid, gid)

    @abstractmethod
    def open(self, caller: Caller, flags: int) -> "Handle":
        """Open the file for ``caller`` with the flags of open(2)."""

    def truncate(self) -> None:
        """Asked for by truncate and ftruncate, not by an open with O_TRUNC."""
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


class Handle:
    """One open file: shared by every descriptor that was inherited, duplicated or passed on."""

    seekable = False
    """Whether offsets mean something. Where they do not, lseek and pread give ESPIPE."""

    wake: Callable[[], None] = staticmethod(lambda: None)
    """Set by the transport; called by the handle when a pending read or a poll may go on."""

    @abstractmethod
    def read(self, size: int, offset: int) -> bytes | None:
        """At most ``size`` octets, or None: nothing yet, the read stays pending."""

    def resume_read(self, size: int, offset: int) -> bytes | None:
        """Try a pending read again, after a wake."""
        return self.read(size, offset)

    def interrupt_read(self) -> bytes:
        """A signal ended a pending read: what the read returns then."""
        raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))

    @abstractmethod
    def write(self, data: bytes, offset: int) -> int:
        """Take ``data``; the number of octets taken."""

    def poll(self) -> tuple[int, bool]:
        """The events that are ready (POLLIN ...), and whether the poller is to be woken later."""
        return select.POLLIN | select.POLLRDNORM | select.POLLOUT | select.POLLWRNORM, False

    def release(self) -> None:
        """The last reference is gone. Nothing is called after this."""
