"""The greeting: what kernel and library agree on at the start, and what we change of it.

The kernel's first request is INIT; the library answers it. What the library would have is made for
file systems that store data. On a device that strangers share it would let one of them hold up the
others, so its reply is amended on its way to the kernel (amend_init). A channel sees every reply
anyway; where the library is to talk to the kernel itself, a ``Greeting`` carries this one exchange.

Source of the fields and flags: linux/fuse.h; of what follows from them: fs/fuse/inode.c,
process_init_reply.
"""

import os
import socket
from struct import Struct

import trio

from ecryptfs_cuse.fuse import abi

_INIT_OUT = Struct("=IIIIHHIIHHI")
"""fuse_init_out: major, minor, max_readahead, flags, max_background, congestion_threshold,
max_write, time_gran, max_pages, map_alignment, flags2; the rest is not used."""

_MAX_READAHEAD, _FLAGS, _MAX_BACKGROUND, _MAX_WRITE, _FLAGS2 = 2, 3, 4, 6, 10
"""Places in _INIT_OUT."""

_ASYNC_READ = 1 << 0
_EXPORT_SUPPORT = 1 << 4
_ASYNC_DIO = 1 << 15
_INIT_EXT = 1 << 30
_NO_EXPORT_SUPPORT = 1 << 6
"""In flags2, which holds the flags from bit 32 on."""

MAX_BACKGROUND = 0xFFFF
"""So many RELEASEs the kernel sends at a time. Files may close in great numbers at once; a later
OPEN would overtake those that have to wait."""


def amend_init(reply: memoryview, body: int) -> None:
    """Change the library's reply to INIT, which begins at ``body``, in place.

    * Nothing is asked in the background: asynchronous reads get no INTERRUPT and every RELEASE
      queues behind them. There is no read-ahead.
    * No file handles (open_by_handle_at): they would name other users' inodes. Kernels that let
      ordinary users open them know the flag by which we say so.
    """
    if len(reply) - body < _INIT_OUT.size:
        return
    fields = list(_INIT_OUT.unpack_from(reply, body))
    fields[_MAX_READAHEAD] = 0
    fields[_FLAGS] &= ~(_ASYNC_READ | _ASYNC_DIO | _EXPORT_SUPPORT)
    fields[_FLAGS] |= _INIT_EXT
    fields[_FLAGS2] |= _NO_EXPORT_SUPPORT
    fields[_MAX_BACKGROUND] = MAX_BACKGROUND
    fields[_MAX_WRITE] = abi.MAX_WRITE
    _INIT_OUT.pack_into(reply, body, *fields)


class Greeting:
    """Carries the greeting, and then lets kernel and library talk to each other.

    ``device`` is the descriptor of the kernel's device; ``library`` that of a socket, to be given
    to the library. It becomes the device.
    """

    def __init__(self, device: int) -> None:
        self._device = device
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.library = theirs.detach()

    async def run(self) -> None:
        """Carry it. Raises OSError where the connection ends before."""
        await trio.lowlevel.wait_readable(self._device)
        self._socket.send(os.read(self._device, abi.BUFFER_SIZE))
        await trio.lowlevel.wait_readable(self._socket)
        reply = memoryview(bytearray(self._socket.recv(abi.REPLY_MAX)))
        amend_init(reply, abi.OUT_HEADER.size)
        os.write(self._device, reply)
        # Whoever waits for the socket would not hear of the device.
        trio.lowlevel.notify_closing(self.library)
        os.dup2(self._device, self.library, inheritable=False)

    def close(self) -> None:
        """Close our end of the socket pair; the other is the library's."""
        self._socket.close()
