"""What is asked most about a tree, answered at once: LOOKUP, GETATTR, READLINK, OPEN.

Each open of a file asks two or three of these. Through the library one takes so long that somebody
who asks them again and again, from many threads, makes everybody else wait for seconds.

    channel = Channel(device)
    channel.answers = tree_answers(Inodes(root), channel.add)

Source of the structures: linux/fuse.h, in native byte order.
"""

import os
from collections.abc import Callable, Mapping
from struct import Struct

from ecryptfs_cuse.fuse import abi
from ecryptfs_cuse.fuse.abi import Opcode
from ecryptfs_cuse.fuse.caller import caller_of
from ecryptfs_cuse.fuse.inodes import VALID, Inode, Inodes, entry_valid
from ecryptfs_cuse.fuse.node import BLOCK_SIZE, Handle

Answer = Callable[[abi.Sender, memoryview], bytes]
"""Answers a request: from its sender and its body to the body of the reply. Raises OSError."""

_ATTR = Struct("=QQQqqqIIIIIIIIII")
"""fuse_attr: ino, size, blocks, atime, mtime, ctime, their nanoseconds, mode, nlink, uid, gid,
rdev, blksize, flags."""

_ENTRY_OUT = Struct("=QQQQII")
"""fuse_entry_out: nodeid, generation, seconds that the entry and the attributes are valid, their
nanoseconds; then a fuse_attr."""

_ATTR_OUT = Struct("=QII")
"""fuse_attr_out: seconds that the attributes are valid, nanoseconds, padding; then a fuse_attr."""

_OPEN_IN = Struct("=I")
"""fuse_open_in: flags of open(2); the rest is not used."""

_SECOND = 10**9


def tree_answers(inodes: Inodes, add: Callable[[Handle], int]) -> Mapping[int, Answer]:
    """A table from opcode to what answers it. ``add`` takes charge of a handle: Channel.add."""

    def lookup(sender: abi.Sender, body: memoryview) -> bytes:
        name = os.fsdecode(bytes(body).rstrip(b"\0"))
        inode = inodes.child(inodes.find(sender.nodeid), name)
        entry = (inodes.number(inode), 0, entry_valid(inode), VALID, 0, 0)
        return _ENTRY_OUT.pack(*entry) + _attributes(inodes, inode)

    def getattr_(sender: abi.Sender, _body: memoryview) -> bytes:
        return _ATTR_OUT.pack(VALID, 0, 0) + _attributes(inodes, inodes.find(sender.nodeid))

    def readlink(sender: abi.Sender, _body: memoryview) -> bytes:
        return os.fsencode(inodes.link(sender.nodeid).target(sender.uid))

    def open_(sender: abi.Sender, body: memoryview) -> bytes:
        (flags,) = _OPEN_IN.unpack_from(body)
        file = inodes.file(sender.nodeid)
        handle = file.open(caller_of(sender.pid, sender.uid), flags)
        how = abi.FOPEN_DIRECT_IO
        if not handle.seekable:
            how |= abi.FOPEN_NONSEEKABLE | abi.FOPEN_STREAM
        return abi.OPEN_OUT.pack(add(handle), how, 0)

    return {
        Opcode.LOOKUP: lookup,
        Opcode.GETATTR: getattr_,
        Opcode.READLINK: readlink,
        Opcode.OPEN: open_,
    }


def _attributes(inodes: Inodes, inode: Inode) -> bytes:
    found = inodes.attributes(inode)
    times = [divmod(time, _SECOND) for time in (found.atime_ns, found.mtime_ns, found.ctime_ns)]
    return _ATTR.pack(
        *(inodes.number(inode), 0, 0),
        *(seconds for seconds, _ in times),
        *(nanoseconds for _, nanoseconds in times),
        *(found.mode, 1, found.uid, found.gid, 0, BLOCK_SIZE, 0),
    )
