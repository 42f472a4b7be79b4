"""The device, dev/ecryptfs."""

import errno
import logging
import os
from collections.abc import Callable
from enum import Enum

from ecryptfs_cuse.core.errors import DeviceError
from ecryptfs_cuse.core.messaging import Daemon, Identity
from ecryptfs_cuse.core.miscdev import Miscdev
from ecryptfs_cuse.fuse.caller import Caller, own_user_namespace
from ecryptfs_cuse.fuse.node import File, Handle
from ecryptfs_cuse.nodes.quota import Quota
from ecryptfs_cuse.wire.packet import PacketType

logger = logging.getLogger(__name__)

_GREETINGS = {kind.value: kind.name for kind in (PacketType.HELO, PacketType.QUIT)}


DEVICES_PER_USER = 1024
"""How many daemons a uid may have, one in each user namespace. A user may make any number."""


class IdentityRule(Enum):
    """What tells users, each with one daemon, apart."""

    USER_NAMESPACE = "user-namespace"
    """The effective uid and the user namespace."""

    GLOBAL_UID = "global-uid"
    """The effective uid outside of user namespaces alone: Linux 6.1."""


def identity_of(caller: Caller, rule: IdentityRule = IdentityRule.USER_NAMESPACE) -> Identity:
    """Whose daemon, or whose requests, a caller's are."""
    if rule is IdentityRule.GLOBAL_UID:
        return Identity(caller.uid, own_user_namespace())
    return Identity(caller.uid, caller.user_namespace)


class DeviceFile(File):
    """Each open registers a daemon."""

    def __init__(
        self,
        miscdev: Miscdev,
        mode: int,
        uid: int | None = None,
        gid: int | None = None,
        rule: IdentityRule = IdentityRule.USER_NAMESPACE,
    ) -> None:
        super().__init__(mode, uid, gid)
        self._miscdev = miscdev
        self._rule = rule
        self._quota = Quota(DEVICES_PER_USER)

    def open(self, caller: Caller, flags: int) -> Handle:
        """Register a daemon for the caller; O_DIRECT is refused before, as by the kernel.

        Raises DeviceError EINVAL where the caller's identity has a daemon, EMFILE where the uid
        has too many, in its user namespaces.
        """
        if flags & os.O_DIRECT:
            raise DeviceError(errno.EINVAL, "the device knows no O_DIRECT")
        close = self._quota.take(caller.uid)
        try:
            return DeviceHandle(self._miscdev, identity_of(caller, self._rule), close)
        except DeviceError:
            close()
            raise


class DeviceHandle(Handle):
    """An open device: its daemon is its private data. Offsets mean nothing."""

    def __init__(self, miscdev: Miscdev, identity: Identity, close: Callable[[], None]) -> None:
        self._miscdev = miscdev
        self._daemon: Daemon = miscdev.open(identity, lambda: self.wake())
        self._close = close
        self._user = identity.euid
        logger.info("user %d: daemon registered", self._user)

    def read(self, size: int, offset: int) -> bytes | None:
        """The next packet."""
        return self._miscdev.read(self._daemon, size)

    def resume_read(self, size: int, offset: int) -> bytes | None:
        """The next packet, for a read that has been waiting."""
        return self._miscdev.resume_read(self._daemon, size)

    def interrupt_read(self) -> bytes:
        """No octets."""
        return self._miscdev.interrupt_read(self._daemon)

    def write(self, data: bytes, offset: int) -> int:
        """A packet from the daemon."""
        written = self._miscdev.write(self._daemon, data)
        if data and data[0] in _GREETINGS:
            logger.info("user %d: %s", self._user, _GREETINGS[data[0]])
        return written

    def poll(self) -> tuple[int, bool]:
        """Readable while a packet is queued; never writable."""
        return self._miscdev.poll(self._daemon)

    def release(self) -> None:
        """The daemon is gone."""
        self._miscdev.release(self._daemon)
        self._close()
        logger.info("user %d: daemon gone", self._user)
