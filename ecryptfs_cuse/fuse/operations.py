"""A tree of nodes as pyfuse3 Operations.

Complete in itself, so that pyfuse3 alone can serve the tree: then a pending read is a task that
waits. Behind a channel, what is asked most never gets here: see channel.py and answers.py.
"""

import errno
import logging
import os
import time
from collections.abc import Awaitable, Callable
from functools import wraps
from inspect import iscoroutinefunction
from itertools import count
from stat import S_IMODE
from typing import NoReturn, ParamSpec, TypeVar

import pyfuse3
import trio
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    FUSEError,
    InodeT,
    PollHandle,
    ReaddirToken,
    RequestContext,
    SetattrFields,
    StatvfsData,
    XAttrNameT,
)

from ecryptfs_cuse.fuse.caller import caller_of
from ecryptfs_cuse.fuse.inodes import VALID, Inode, Inodes, entry_valid
from ecryptfs_cuse.fuse.node import BLOCK_SIZE, Directory, File, Handle

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


def _answering(operations: type[T]) -> type[T]:
    """Have each handler refuse by FUSEError alone: any other exception ends the session."""
    for name, handler in list(vars(operations).items()):
        if name in vars(pyfuse3.Operations) and iscoroutinefunction(handler):
            setattr(operations, name, _answer(handler))
    return operations


def _answer(handler: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    @wraps(handler)
    async def answer(*arguments: P.args, **named: P.kwargs) -> T:
        try:
            return await handler(*arguments, **named)
        except FUSEError:
            raise
        except OSError as error:
            raise FUSEError(error.errno or errno.EIO) from None
        except Exception:
            logger.exception("%s failed", handler.__name__)
            raise FUSEError(errno.EIO) from None

    return answer


class _OpenFile:
    """What is kept for an open file that pyfuse3 alone serves."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.readers = trio.lowlevel.ParkingLot()
        self.poller: PollHandle | None = None
        handle.wake = self._wake

    def _wake(self) -> None:
        self.readers.unpark_all()
        poller, self.poller = self.poller, None
        if poller is not None:
            poller.notify()


@_answering
class TreeOperations(pyfuse3.Operations):
    """Serves ``root``."""

    enable_writeback_cache = False
    supports_dot_lookup = False  # which stands for file handles: see greeting.py

    def __init__(self, root: Directory) -> None:
        super().__init__()
        self.ready = trio.Event()
        self._numbers = count(1)
        self._files: dict[int, _OpenFile] = {}
        self._reads = 0  # under way, whether they wait or not
        self.inodes = Inodes(root)

    async def settle(self) -> None:
        """Let the reads that were woken answer, before their tasks are cancelled."""
        while self._reads > sum(len(file.readers) for file in self._files.values()):
            await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Release the files that are still open."""
        while self._files:
            self._files.popitem()[1].handle.release()

    # The tree.

    def init(self) -> None:
        """Called when the kernel has greeted: from here on the tree is served."""
        self.ready.set()

    async def lookup(
        self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        """The child ``name`` of a directory."""
        parent = self.inodes.find(parent_inode)
        return self._entry(self.inodes.child(parent, os.fsdecode(name)))

    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        """The attributes of a node."""
        return self._entry(self.inodes.find(inode))

    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        """Where a link leads the caller."""
        return FileNameT(os.fsencode(self.inodes.link(inode).target(ctx.uid)))

    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        """Change mode, owner, group and times: they last until the unmount."""
        found = node, _ = self.inodes.find(inode)
        if isinstance(node, Directory) and self.inodes.is_personal(node):
            raise FUSEError(errno.EPERM)  # it is as it has to be
        attributes = node.attributes
        if fields.update_size:
            if not isinstance(node, File):
                raise FUSEError(errno.EISDIR)
            node.truncate()
        if fields.update_mode:
            kind = attributes.mode - S_IMODE(attributes.mode)
            attributes.mode = kind | S_IMODE(attr.st_mode)
        if fields.update_uid:
            attributes.uid = attr.st_uid
        if fields.update_gid:
            attributes.gid = attr.st_gid
        if fields.update_atime:
            attributes.atime_ns = attr.st_atime_ns
        if fields.update_mtime:
            attributes.mtime_ns = attr.st_mtime_ns
        attributes.ctime_ns = time.time_ns()  # the kernel does not say
        return self._entry(found)

    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        """A directory's file handle is its inode number: nothing is kept for it."""
        self.inodes.find(inode)
        return FileHandleT(inode)

    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        """List a directory; an entry's id is its place in the list."""
        directory = self.inodes.find(fh)
        entries = [(".", directory), ("..", self.inodes.parent(directory))]
        if isinstance(directory.node, Directory):
            names = directory.node.children
            entries += [(name, self.inodes.child(directory, name)) for name in names]
        for place, (name, inode) in enumerate(entries[start_id:], start_id + 1):
            encoded = os.fsencode(name)
            if not pyfuse3.readdir_reply(token, encoded, self._entry(inode), place):
                return

    async def releasedir(self, fh: FileHandleT) -> None:
        """Nothing was kept for the directory."""

    async def forget(self, inode_list: object) -> None:
        """Nodes stay where they are, whatever the kernel still remembers of them."""

    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        """A file system with no room, as procfs is."""
        data = StatvfsData()
        data.f_bsize = data.f_frsize = BLOCK_SIZE
        data.f_namemax = 255
        return data

    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> list[XAttrNameT]:
        """There are no extended attributes."""
        return []

    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        """None of them is there."""
        raise FUSEError(errno.ENODATA)

    async def setxattr(
        self, inode: InodeT, name: XAttrNameT, value: bytes, ctx: RequestContext
    ) -> None:
        """Refused, as user attributes of a device are."""
        raise FUSEError(errno.EPERM)

    async def removexattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> None:
        """Refused, as user attributes of a device are."""
        raise FUSEError(errno.EPERM)

    async def _refuse(self, *_arguments: object) -> NoReturn:
        """The tree stays as it is, whoever asks: as in sysfs."""
        raise FUSEError(errno.EPERM)

    # Each has a signature of its own, but for us they are all the same.
    create = link = mkdir = mknod = rename = rmdir = symlink = unlink = _refuse  # type: ignore[assignment]

    # Open files.

    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        """Open a file for its caller."""
        handle = self.inodes.file(inode).open(caller_of(ctx.pid, ctx.uid), flags)
        number = next(self._numbers)
        self._files[number] = _OpenFile(handle)
        return FileInfo(fh=number, direct_io=True, nonseekable=not handle.seekable)

    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        """Read from an open file; waits in this task until the handle has something."""
        file = self._files[fh]
        self._reads += 1
        try:
            data = file.handle.read(size, off)
            while data is None:
                await file.readers.park()
                data = file.handle.resume_read(size, off)
            return data
        finally:
            self._reads -= 1

    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        """Write to an open file."""
        return self._files[fh].handle.write(buf, off)

    async def poll(
        self,
        inode: InodeT,
        fh: FileHandleT,
        poll_handle: PollHandle | None,
        ctx: RequestContext,
    ) -> int:
        """Which events an open file is ready for."""
        file = self._files[fh]
        events, wait = file.handle.poll()
        if wait:
            file.poller = poll_handle
        return events

    async def flush(self, fh: FileHandleT) -> None:
        """Not implemented, which the kernel takes for success and asks no more."""
        raise FUSEError(errno.ENOSYS)

    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        """Refused, as a character device without fsync refuses it."""
        raise FUSEError(errno.EINVAL)

    async def release(self, fh: FileHandleT) -> None:
        """The last reference to an open file is gone."""
        file = self._files.pop(fh)
        file.handle.release()

    def _entry(self, inode: Inode) -> EntryAttributes:
        attributes = self.inodes.attributes(inode)
        entry = EntryAttributes()
        entry.st_ino = InodeT(self.inodes.number(inode))
        entry.st_mode = attributes.mode
        entry.st_nlink = 1
        entry.st_uid = attributes.uid
        entry.st_gid = attributes.gid
        entry.st_blksize = BLOCK_SIZE
        entry.st_atime_ns = attributes.atime_ns
        entry.st_mtime_ns = attributes.mtime_ns
        entry.st_ctime_ns = attributes.ctime_ns
        entry.attr_timeout = VALID
        entry.entry_timeout = entry_valid(inode)
        return entry
