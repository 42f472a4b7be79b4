"""The device, mounted and served, for programs that embed it.

    from ecryptfs_cuse.serve import serve

    async with serve("/tmp/ecryptfs") as device:
        answer = await device.request(packet)       # while a daemon has device.path open

A thread that serves must never itself wait for the file system that it serves: a daemon on this
device belongs into another thread or another process.
"""

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any

import trio

from ecryptfs_cuse.core.errors import DeviceError
from ecryptfs_cuse.core.messaging import Messaging
from ecryptfs_cuse.core.miscdev import Miscdev
from ecryptfs_cuse.fuse import mount
from ecryptfs_cuse.fuse.caller import Caller, own_user_namespace
from ecryptfs_cuse.fuse.mountinfo import MountError
from ecryptfs_cuse.fuse.service import Service, in_thread, protected
from ecryptfs_cuse.fuse.session import Transport, hosted
from ecryptfs_cuse.nodes.device import DeviceFile, IdentityRule, identity_of
from ecryptfs_cuse.nodes.exchange import Exchange
from ecryptfs_cuse.nodes.parameters import Parameters
from ecryptfs_cuse.nodes.status import status
from ecryptfs_cuse.nodes.tree import device_tree

__all__ = [
    "DEVICE_MODE",
    "ID_MAX",
    "Device",
    "DeviceError",
    "IdentityRule",
    "MountError",
    "Parameters",
    "Transport",
    "serve",
]

DEVICE_MODE = 0o600
ID_MAX = 2**32 - 2
"""The largest uid and gid: the next means "no change" to the kernel."""


class Device:
    """A mounted device. Get one from ``serve``.

    mountpoint, path, status_path: where the tree is and, in it, the device and control/status.
    """

    def __init__(
        self,
        mountpoint: str,
        messaging: Messaging,
        exchange: Exchange,
        rule: IdentityRule,
        unmounted: trio.Event,
    ) -> None:
        self.mountpoint = mountpoint
        self.path = os.path.join(mountpoint, "dev", "ecryptfs")
        self.status_path = os.path.join(mountpoint, "control", "status")
        self._messaging = messaging
        self._exchange = exchange
        self._rule = rule
        self._unmounted = unmounted

    @trio.lowlevel.enable_ki_protection
    async def request(
        self, packet: bytes, *, uid: int | None = None, timeout: float | None = None
    ) -> bytes:
        """Have the daemon of ``uid`` answer a tag packet, as eCryptfs would for a file of ``uid``.

        uid: an effective uid in this process's user namespace; by default our own.
        timeout: in seconds, in place of the parameter message_wait_timeout.

        Raises DeviceError ENOTCONN where the user has no daemon, ENOMEM where no message context
        is free, ENOMSG where the daemon did not answer in time, ESHUTDOWN and ENODEV when the
        device goes; BuildError where the packet is longer than a message can be. Cancelled, it is
        gone at once; its context is free after the answer or the time-out.
        """
        caller = Caller(os.geteuid() if uid is None else uid, own_user_namespace())
        identity = identity_of(caller, self._rule)
        finished = trio.Event()
        request = self._exchange.send(identity, packet, finished.set, timeout)
        try:
            await finished.wait()
        except BaseException:  # Cancelled, or KeyboardInterrupt
            self._exchange.abandon(request)
            raise
        return request.take()

    def status(self) -> dict[str, Any]:
        """What control/status says: daemons, contexts, counters."""
        return status(self._messaging)

    async def wait_unmounted(self) -> None:
        """Wait until somebody else unmounts the device."""
        await self._unmounted.wait()


def serve(
    mountpoint: str | os.PathLike[str],
    parameters: Parameters = Parameters(),  # noqa: B008  # frozen: sharing it does no harm
    *,
    options: Iterable[str] = (),
    transport: Transport = Transport.CHANNEL,
    mode: int = DEVICE_MODE,
    uid: int | None = None,
    gid: int | None = None,
    identity: IdentityRule = IdentityRule.USER_NAMESPACE,
    contexts_per_user: int | None = None,
) -> AbstractAsyncContextManager[Device, bool]:
    """Mount the device at ``mountpoint``, an existing directory, and serve it during the block.

    options: of mount(8) and fuse(8), such as "allow_other".
    mode, uid, gid: of the device's file; by default 0600 and ours.
    identity: what tells users, each with one daemon, apart.
    contexts_per_user: how many requests of one uid can wait at a time; as the kernel, no limit.

    A child made by fork during the block leaves by os._exit or exec: trio's loop is its parent's.

    At the end blocked readers return 0 octets, requests fail, and the mount is gone, files still
    open in it or not: however the block ends, by Ctrl-C too. What the block raises comes out as it
    is. Raises MountError where it cannot be mounted, RuntimeError where this process serves one
    already, ValueError for a uid, gid or mode that is none; where serving fails, the block is
    cancelled and the failure comes out.
    """
    transport, identity = Transport(transport), IdentityRule(identity)
    if isinstance(options, str):
        raise TypeError("options are several: give a list of strings, not a string")
    if not 0 <= mode <= 0o777:
        raise ValueError(f"a mode is 0 to 0o777, not {mode:#o}")
    for number in (uid, gid):
        if number is not None and not 0 <= number <= ID_MAX:
            raise ValueError(f"a uid or gid is 0 to {ID_MAX}, not {number}")
    messaging = Messaging(parameters.message_buf_len, contexts_per_user)
    exchange = Exchange(messaging, parameters.message_wait_timeout)
    device_file = DeviceFile(Miscdev(messaging), mode, uid, gid, identity)
    tree = device_tree(device_file, messaging, exchange, parameters, identity)

    async def service(started: Callable[[Device], None]) -> None:
        where = await in_thread(mount.resolve, mountpoint)
        async with (
            hosted(tree, where, options=options, transport=transport) as unmounted,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(protected, exchange.run)
            nursery.start_soon(protected, _shut_down_when, unmounted, messaging)
            device = Device(where, messaging, exchange, identity, unmounted)
            try:
                await _first_open(device)
                started(device)
                await trio.sleep_forever()
            finally:
                messaging.shut_down()
                nursery.cancel_scope.cancel()

    return Service(service)


async def _shut_down_when(unmounted: trio.Event, messaging: Messaging) -> None:
    await unmounted.wait()
    messaging.shut_down()


async def _first_open(device: Device) -> None:
    """Let the kernel learn, at the first close, that it need not tell us of closes (FUSE_FLUSH).

    Later may be too late: a program that embeds the device and a daemon, and starts a process,
    holds Python's lock while that process closes its copy of the daemon's descriptor, so that we
    could not answer. For the same reason it is not left to its thread when we are cancelled.
    """
    try:
        await in_thread(_open_and_close, device.status_path)
    except OSError as error:
        await trio.lowlevel.checkpoint()  # has serving failed? Then that is what to say
        raise MountError(
            f"{device.mountpoint} went away before it was ready: {error.strerror}"
        ) from error


def _open_and_close(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
