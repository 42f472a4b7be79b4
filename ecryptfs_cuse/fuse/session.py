"""Hosting a tree: mount it, serve it by one of two transports, take it away again.

The library's session is global, so a process can host one tree at a time.

At the end the mount is taken away first, while whoever looks at it still gets answers; then the
loops end, then the connection.
"""

import contextlib
import errno
import logging
import os
import threading
from collections.abc import AsyncIterator, Iterable
from enum import StrEnum

import pyfuse3
import trio

from ecryptfs_cuse.fuse import mount
from ecryptfs_cuse.fuse.answers import tree_answers
from ecryptfs_cuse.fuse.channel import Channel
from ecryptfs_cuse.fuse.connection import Connection
from ecryptfs_cuse.fuse.greeting import Greeting
from ecryptfs_cuse.fuse.mountinfo import Entry, MountError, MountWatch
from ecryptfs_cuse.fuse.node import Directory
from ecryptfs_cuse.fuse.operations import TreeOperations
from ecryptfs_cuse.fuse.service import in_thread, protected

_PATIENCE = 5.0
"""Seconds that the library's tasks get to end by themselves."""

# The library starts its tasks itself. All its coroutines are of one function's code, and protection
# goes by code.
trio.lowlevel.enable_ki_protection(pyfuse3.main)

# That whoever asked has not waited for the answer is no error.
logging.getLogger("pyfuse3").addFilter(lambda record: record.args != (os.strerror(errno.ENOENT),))

_hosting = threading.Lock()


def _host_nothing() -> None:
    """In a child made by fork: what is hosted is its parent's."""
    global _hosting
    _hosting = threading.Lock()


os.register_at_fork(after_in_child=_host_nothing)


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

    For a task that no KeyboardInterrupt reaches, see Service.

    Raises MountError where it cannot be mounted, RuntimeError where this process hosts already.
    """
    if not _hosting.acquire(blocking=False):
        raise RuntimeError("this process serves a mount already: one process, one mount")
    try:
        async with _hosted(root, mountpoint, tuple(options), transport) as unmounted:
            yield unmounted
    finally:
        _hosting.release()


@contextlib.asynccontextmanager
async def _hosted(
    root: Directory, mountpoint: str, options: tuple[str, ...], transport: Transport
) -> AsyncIterator[trio.Event]:
    # default_permissions is said to the kernel here, because the library does not mount.
    device, mounted = await in_thread(mount.mount, mountpoint, ("default_permissions", *options))
    try:
        with contextlib.ExitStack() as end:
            end.callback(os.close, device)
            watch = MountWatch(mounted)
            end.callback(watch.close)
            channel = Channel(device) if transport is Transport.CHANNEL else None
            operations = TreeOperations(root)
            end.callback(operations.close)
            between: Channel | Greeting
            if channel is not None:
                channel.answers = tree_answers(operations.inodes, channel.add)
                between, library = channel, channel.library.detach()
                connection = Connection(mounted.connection, device)
            else:
                between = Greeting(device)
                library = between.library
                connection = Connection(mounted.connection, device, library)
            end.callback(between.close)
            end.callback(connection.close)
            # The library takes over the descriptor that it is given, and closes it.
            pyfuse3.init(operations, f"/dev/fd/{library}", set())
            end.callback(pyfuse3.close, unmount=False)
            async with _serving(operations, between, watch, connection) as unmounted:
                try:
                    yield unmounted
                finally:
                    with contextlib.suppress(MountError):  # said below, if it still fails then
                        await _unmount(mounted)
    finally:
        # What could not be unmounted while it was served: now that the connection is gone, nothing
        # that unmounting does can wait for us.
        await _unmount(mounted)


async def _unmount(mounted: Entry) -> None:
    with trio.CancelScope(shield=True):
        await in_thread(mount.unmount, mounted)


@contextlib.asynccontextmanager
async def _serving(
    operations: TreeOperations,
    between: Channel | Greeting,
    watch: MountWatch,
    connection: Connection,
) -> AsyncIterator[trio.Event]:
    """Serve during the block, and go on while it is being cancelled, until its last line."""
    unmounted = trio.Event()
    library_ended = trio.Event()
    serving = trio.CancelScope(shield=True)
    serving_library = trio.CancelScope(shield=True)

    # However one of the loops ends, the connection is cut: nobody shall wait for an answer that
    # never comes.

    def note_unmounted() -> None:
        unmounted.set()
        operations.ready.set()  # it will never be, and nobody shall wait for it

    async def serve_channel(channel: Channel) -> None:
        with serving:
            try:
                await channel.run()
            finally:
                connection.cut()
            note_unmounted()

    async def greet(greeting: Greeting) -> None:
        with serving:
            try:
                await greeting.run()
            except OSError:
                note_unmounted()

    async def serve_library() -> None:
        try:
            with serving_library:
                await pyfuse3.main()
                if isinstance(between, Greeting):
                    # Its first task ended where the socket became the device. If that was not why,
                    # this is over at once.
                    await pyfuse3.main()
        except* OSError as group:
            if not all(_is_abort(error) for error in group.exceptions):
                raise
        finally:
            connection.cut()
            library_ended.set()
        if isinstance(between, Greeting):
            note_unmounted()
        elif not stopping:
            raise RuntimeError("the library has stopped serving")

    async def notice_unmount() -> None:
        while watch.is_mounted():
            await trio.lowlevel.wait_readable(watch)
        note_unmounted()

    stopping = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(protected, serve_library)
        if isinstance(between, Channel):
            nursery.start_soon(protected, serve_channel, between)
        else:
            nursery.start_soon(protected, greet, between)
        nursery.start_soon(protected, notice_unmount)
        try:
            await operations.ready.wait()
            if unmounted.is_set():
                raise MountError("somebody unmounted it before it was ready: try again")
            yield unmounted
        finally:
            stopping = True
            with trio.CancelScope(shield=True):
                await operations.settle()
                # Cancelled, the library's tasks would not free their buffers.
                pyfuse3.terminate()
                with trio.move_on_after(_PATIENCE):
                    await library_ended.wait()
            serving.cancel()
            serving_library.cancel()
            nursery.cancel_scope.cancel()


def _is_abort(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno == errno.ECONNABORTED
