"""Hosting a tree: mount it, serve it by one of two transports, take it away again.

The library's session is global, so a process can host one tree at a time.
"""

import contextlib
import os
from collections.abc import AsyncIterator, Iterable
from enum import StrEnum

import pyfuse3
import trio

from ecryptfs_cuse.fuse import mount
from ecryptfs_cuse.fuse.channel import Channel
from ecryptfs_cuse.fuse.mountinfo import MountWatch
from ecryptfs_cuse.fuse.node import Directory
from ecryptfs_cuse.fuse.operations import TreeOperations

_hosting = False


class Transport(StrEnum):
    """How requests reach the nodes."""

    CHANNEL = "channel"
    PYFUSE3 = "pyfuse3"


@contextlib.asynccontextmanager
async def hosted(
    root: Directory,
    mountpoint: str,
    *,
    options: Iterable[str] = (),
    transport: Transport = Transport.CHANNEL,
) -> AsyncIterator[trio.Event]:
    """Serve ``root`` at ``mountpoint`` while the block runs; it can be used from the first line on.

    Yields an event that is set when somebody else unmounts it. Pending reads should be ended by
    their nodes before the block ends: whatever is still pending gets no answer but the loss of
    the connection.

    Raises MountError where it cannot be mounted, RuntimeError where this process hosts already.
    """
    global _hosting
    if _hosting:
        raise RuntimeError("this process serves a mount already: one process, one mount")
    _hosting = True
    try:
        async with _hosted(root, mountpoint, tuple(options), transport) as unmounted:
            yield unmounted
    finally:
        _hosting = False


@contextlib.asynccontextmanager
async def _hosted(
    root: Directory, mountpoint: str, options: tuple[str, ...], transport: Transport
) -> AsyncIterator[trio.Event]:
    # default_permissions is said to the kernel here, because the library does not mount.
    device, mounted = await trio.to_thread.run_sync(
        mount.mount, mountpoint, ("default_permissions", *options)
    )
    watch = MountWatch(mounted)
    channel = Channel(device) if transport is Transport.CHANNEL else None
    operations = TreeOperations(root, channel.add if channel else None)
    try:
        # The library takes over the descriptor that it is given, and closes it.
        library = channel.library.detach() if channel else os.dup(device)
        pyfuse3.init(operations, f"/dev/fd/{library}", set())
        try:
            async with _serving(operations, channel, watch) as unmounted:
                yield unmounted
        finally:
            pyfuse3.close(unmount=False)
    finally:
        if channel is not None:
            channel.close()
        operations.close()
        os.close(device)
        watch.close()
        # After the connection is gone, so that nothing that unmounting does can wait for us.
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(mount.unmount, mounted)


@contextlib.asynccontextmanager
async def _serving(
    operations: TreeOperations, channel: Channel | None, watch: MountWatch
) -> AsyncIterator[trio.Event]:
    """Serve during the block, and go on while it is being cancelled, until its last line."""
    unmounted = trio.Event()

    async def serve() -> None:
        with serving:
            if channel is None:
                await pyfuse3.main()
            else:
                await channel.run()
        unmounted.set()

    async def serve_library() -> None:
        with serving_library:
            await pyfuse3.main()

    async def notice_unmount() -> None:
        while watch.is_mounted():
            await trio.lowlevel.wait_readable(watch)
        unmounted.set()

    serving = trio.CancelScope(shield=True)
    serving_library = trio.CancelScope(shield=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        if channel is not None:
            nursery.start_soon(serve_library)
        nursery.start_soon(notice_unmount)
        try:
            await operations.ready.wait()
            yield unmounted
        finally:
            with trio.CancelScope(shield=True):
                await operations.settle()
            serving.cancel()
            serving_library.cancel()
            nursery.cancel_scope.cancel()
