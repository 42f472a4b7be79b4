"""A tree of nodes as pyfuse3 Operations.

Complete in itself, so that pyfuse3 alone can serve the tree: then a pending read is a task that
waits. Behind a channel, read, write, poll and release of open files never get here.
"""

import errno
import logging
import os
from collections.abc import Callable, Iterator
from itertools import count
from stat import S_IMODE
from typing import NoReturn, TypeVar

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
from ecryptfs_cuse.fuse.node import Directory, File, Handle, Node

logger = logging.getLogger(__name__)

T = TypeVar("T")

_ATTRIBUTES_VALID = 1.0
_BLOCK_SIZE = 4096


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


class TreeOperations(pyfuse3.Operations):
    """Serves ``root``. ``add`` is the channel's, where a channel serves the open files."""

    enable_writeback_cache = False

    def __init__(self, root: Directory, add: Callable[[Handle], int] | None = None) -> None:
        super().__init__()
        self.ready = trio.Event()
        self._add = add or self._add_here
        self._numbers = count(1)
        self._files: dict[int, _OpenFile] = {}
        self._reads = 0  # under way, whether they wait or not
        self._nodes: dict[int, Node] = {}
        self._inodes: dict[Node, int] = {}
        for inode, node in enumerate(_walk(root), pyfuse3.ROOT_INODE):
            self._nodes[inode] = node
            self._inodes[node] = inode
        self._parents = {
            child: directory
            for directory in self._inodes
            if isinstance(directory, Directory)
            for child in directory.children.values()
        }

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
        directory = self._directory(parent_inode)
        if name == b".":
            return self._entry(directory)
        if name == b"..":
            return self._entry(self._parents.get(directory, directory))
        child = directory.children.get(os.fsdecode(name))
        if child is None:
            raise FUSEError(errno.ENOENT)
        return self._entry(child)

    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        """The attributes of a node."""
        return self._entry(self._nodes[inode])

    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        """Change mode, owner, group and times: they last until the unmount."""
        node = self._nodes[inode]
        attributes = node.attributes
        if fields.update_size:
            if not isinstance(node, File):
                raise FUSEError(errno.EISDIR)
            _call(node.truncate)
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
        attributes.ctime_ns = attr.st_ctime_ns
        return self._entry(node)

    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        """A directory's file handle is its inode number."""
        self._directory(inode)
        return inode

    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        """List a directory; an entry's id is its place in the list."""
        directory = self._directory(fh)
        entries: list[tuple[str, Node]] = [
            (".", directory),
            ("..", self._parents.get(directory, directory)),
            *directory.children.items(),
        ]
        for place, (name, node) in enumerate(entries[start_id:], start_id + 1):
            encoded = os.fsencode(name)
            if not pyfuse3.readdir_reply(token, encoded, self._entry(node), place):
                return

    async def releasedir(self, fh: FileHandleT) -> None:
        """Nothing was kept for the directory."""

    async def forget(self, inode_list: object) -> None:
        """Nodes stay where they are, whatever the kernel still remembers of them."""

    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        """A file system with no room, as procfs is."""
        data = StatvfsData()
        data.f_bsize = data.f_frsize = _BLOCK_SIZE
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
        node = self._nodes[inode]
        if not isinstance(node, File):
            raise FUSEError(errno.EISDIR)
        handle = _call(lambda: node.open(caller_of(ctx.pid, ctx.uid), flags))
        number = self._add(handle)
        return FileInfo(fh=number, direct_io=True, nonseekable=not handle.seekable)

    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        """Read from an open file; waits in this task until the handle has something."""
        file = self._files[fh]
        self._reads += 1
        try:
            data = _call(lambda: file.handle.read(size, off))
            while data is None:
                await file.readers.park()
                data = _call(lambda: file.handle.resume_read(size, off))
            return data
        finally:
            self._reads -= 1

    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        """Write to an open file."""
        return _call(lambda: self._files[fh].handle.write(buf, off))

    async def poll(
        self,
        inode: InodeT,
        fh: FileHandleT,
        poll_handle: PollHandle | None,
        ctx: RequestContext,
    ) -> int:
        """Which events an open file is ready for."""
        file = self._files[fh]
        events, wait = _call(file.handle.poll)
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
        _call(file.handle.release)

    def _add_here(self, handle: Handle) -> int:
        number = next(self._numbers)
        self._files[number] = _OpenFile(handle)
        return number

    def _directory(self, inode: InodeT) -> Directory:
        node = self._nodes[inode]
        if not isinstance(node, Directory):
            raise FUSEError(errno.ENOTDIR)
        return node

    def _entry(self, node: Node) -> EntryAttributes:
        attributes = node.attributes
        entry = EntryAttributes()
        entry.st_ino = self._inodes[node]
        entry.st_mode = attributes.mode
        entry.st_nlink = 1
        entry.st_uid = attributes.uid
        entry.st_gid = attributes.gid
        entry.st_blksize = _BLOCK_SIZE
        entry.st_atime_ns = attributes.atime_ns
        entry.st_mtime_ns = attributes.mtime_ns
        entry.st_ctime_ns = attributes.ctime_ns
        entry.attr_timeout = entry.entry_timeout = _ATTRIBUTES_VALID
        return entry


def _walk(directory: Directory) -> Iterator[Node]:
    yield directory
    for child in directory.children.values():
        if isinstance(child, Directory):
            yield from _walk(child)
        else:
            yield child


def _call(call: Callable[[], T]) -> T:
    """Call into a node: an OSError becomes pyfuse3's error, anything unforeseen EIO."""
    try:
        return call()
    except OSError as error:
        raise FUSEError(error.errno or errno.EIO) from None
    except Exception:
        logger.exception("a node failed")
        raise FUSEError(errno.EIO) from None
