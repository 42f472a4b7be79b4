"""The system calls on the device: miscdev.c.

Every check is here, or called from here, in the kernel's order, because the order decides which
error wins.
"""

import errno
import select
from collections.abc import Callable

from ecryptfs_cuse.core.errors import DeviceError
from ecryptfs_cuse.core.messaging import Daemon, DaemonFlag, Identity, Messaging
from ecryptfs_cuse.wire.errors import ParseError
from ecryptfs_cuse.wire.packet import (
    HEADER_SIZE,
    MESSAGE_HEADER_SIZE,
    Packet,
    PacketType,
    build_packet,
    parse_message,
    parse_packet,
)

WRITE_MAX = 531
"""The most octets that a write may have (MAX_MSG_PKT_SIZE)."""

RESPONSE_MIN = HEADER_SIZE + 1 + MESSAGE_HEADER_SIZE
"""The least octets that a RESPONSE may have."""

READABLE = select.POLLIN | select.POLLRDNORM


class Miscdev:
    """The device: what open, read, write, poll and release do.

    A ``Daemon`` is what an open file has for its private data: once it is open, nobody asks who
    the caller is.
    """

    def __init__(self, messaging: Messaging) -> None:
        self._messaging = messaging

    def open(self, identity: Identity, wake: Callable[[], None]) -> Daemon:
        """Register a daemon. Raises DeviceError EINVAL where this identity has one."""
        return self._messaging.spawn_daemon(identity, wake)

    def read(self, daemon: Daemon, count: int) -> bytes | None:
        """Take the next packet, or None: the read waits, and is to be resumed or interrupted.

        Returns no octets at once where another read is inside, and where the packet has more than
        ``count`` octets; it then stays the next one.
        """
        if not daemon.begin_read():
            daemon.end_read()
            return b""
        return self.resume_read(daemon, count)

    def resume_read(self, daemon: Daemon, count: int) -> bytes | None:
        """Go on with a read that was waiting."""
        if not daemon.out_queue and not daemon.flags & DaemonFlag.ZOMBIE:
            return None
        daemon.end_read()
        if daemon.flags & DaemonFlag.ZOMBIE:
            return b""
        entry = next(iter(daemon.out_queue))
        packet = build_packet(Packet(entry.type, entry.counter, entry.body))
        if count < len(packet):
            return b""
        daemon.dequeue()
        return packet

    def interrupt_read(self, daemon: Daemon) -> bytes:
        """A signal ends a read that was waiting: it returns no octets, never EINTR."""
        daemon.end_read()
        return b""

    def poll(self, daemon: Daemon) -> tuple[int, bool]:
        """The events that are ready, and whether the poller is to be woken by the next message.

        While a reader is inside, both are nothing: the kernel does not get as far as putting the
        poller on the wait queue.
        """
        try:
            if not daemon.begin_poll():
                return 0, False
            return (READABLE if daemon.out_queue else 0), True
        finally:
            daemon.end_poll()

    def write(self, daemon: Daemon, octets: bytes) -> int:
        """Take a packet from the daemon; the number of octets, always all of them.

        Raises DeviceError EINVAL for anything but HELO, QUIT and a RESPONSE that somebody waits
        for. HELO and QUIT have no effect.
        """
        if not octets:
            return 0
        if not HEADER_SIZE <= len(octets) <= WRITE_MAX:
            raise DeviceError(errno.EINVAL, f"a packet has {HEADER_SIZE} to {WRITE_MAX} octets")
        try:
            packet = parse_packet(octets)
            if packet.type == PacketType.RESPONSE:
                if len(octets) < RESPONSE_MIN or packet.body is None:
                    raise ParseError(f"a RESPONSE has at least {RESPONSE_MIN} octets")
                message = parse_message(packet.body)
                self._messaging.process_response(daemon, packet.counter, message)
            elif packet.type not in (PacketType.HELO, PacketType.QUIT):
                raise ParseError(f"a daemon does not send packets of type {packet.type}")
        except ParseError as error:
            raise DeviceError(errno.EINVAL, str(error)) from None
        return len(octets)

    def release(self, daemon: Daemon) -> None:
        """The last reference to the open device is gone."""
        self._messaging.exorcise_daemon(daemon)
