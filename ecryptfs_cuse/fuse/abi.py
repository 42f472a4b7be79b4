"""The part of the kernel's FUSE protocol that the channel speaks itself: linux/fuse.h.

Everything is in native byte order. Sizes are in octets.
"""

from enum import IntEnum
from struct import Struct
from typing import NamedTuple

MAX_WRITE = 3 * 4096
"""The most octets of one WRITE: enough for the longest request that control/request takes.

The kernel splits what is longer, and stops at the first piece that is refused: a write of megabytes
costs no more than one of a page.
"""

BUFFER_SIZE = MAX_WRITE + 4096
"""What one read of /dev/fuse may return: the largest WRITE with its headers. A SETXATTR that is
longer the kernel refuses with E2BIG."""

REPLY_MAX = 1 << 16
"""What one reply of the library may have; the longest lists a directory."""

ERROR_MAX = 511
"""The largest errno that the kernel takes in a reply."""


class Opcode(IntEnum):
    """enum fuse_opcode: the requests that are not passed on as they are."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    READLINK = 5
    OPEN = 14
    READ = 15
    WRITE = 16
    RELEASE = 18
    INIT = 26
    INTERRUPT = 36
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42


IN_HEADER = Struct("=IIQ")
"""fuse_in_header: len (of the whole request), opcode, unique; the rest is not used."""

IN_HEADER_SIZE = 40

_SENDER = Struct("=QIII")
_SENDER_OFFSET = 16


class Sender(NamedTuple):
    """The rest of fuse_in_header: the inode number that is meant, and who asks."""

    nodeid: int
    uid: int
    gid: int
    pid: int


def sender_of(request: bytes | memoryview) -> Sender:
    """Who sends a request, and about which inode. Raises struct.error."""
    return Sender(*_SENDER.unpack_from(request, _SENDER_OFFSET))


OUT_HEADER = Struct("=IiQ")
"""fuse_out_header: len, error (0 or a negative errno), unique."""

READ_IN = Struct("=QQIIQI")
"""fuse_read_in: fh, offset, size, read_flags, lock_owner, flags (of the open file)."""

READ_LOCKOWNER = 1 << 1
"""Flag of READ: it is a process that reads, and not the kernel that fills its page cache."""

WRITE_IN = Struct("=QQI")
"""fuse_write_in: fh, offset, size; the rest is not used."""

WRITE_DATA_OFFSET = IN_HEADER_SIZE + 40
"""Where the data of a WRITE starts: behind the header and the whole fuse_write_in."""

WRITE_OUT = Struct("=II")
"""fuse_write_out: size, padding."""

POLL_IN = Struct("=QQII")
"""fuse_poll_in: fh, kh (names the open file in a notification), flags, events."""

POLL_SCHEDULE_NOTIFY = 1
"""Flag of POLL: somebody waits, and is to be woken by a notification."""

POLL_OUT = Struct("=II")
"""fuse_poll_out: revents, padding."""

NOTIFY_POLL = 1
"""The code of fuse_notify_poll_wakeup_out, in the header's field for the error."""

NOTIFY_POLL_OUT = Struct("=Q")
"""fuse_notify_poll_wakeup_out: kh."""

INTERRUPT_IN = Struct("=Q")
"""fuse_interrupt_in: the unique of the request that a signal interrupts."""

RELEASE_IN = Struct("=Q")
"""fuse_release_in: fh; the rest is not used."""

OPEN_OUT = Struct("=QII")
"""fuse_open_out: fh, open_flags, padding."""

FOPEN_DIRECT_IO = 1 << 0
FOPEN_NONSEEKABLE = 1 << 2
FOPEN_STREAM = 1 << 4
"""The file has no position, so that reads and writes do not wait for one another's lock on it."""
