"""ecryptfs-cuse mount and umount."""

import ctypes
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

import click
import trio

from ecryptfs_cuse.cli.background import in_background
from ecryptfs_cuse.cli.errors import MountFailed
from ecryptfs_cuse.fuse import bind as binds
from ecryptfs_cuse.fuse import mount as mounts
from ecryptfs_cuse.fuse.mountinfo import MountError
from ecryptfs_cuse.fuse.patience import open_in_time
from ecryptfs_cuse.nodes.parameters import MESSAGE_BUF_LEN_MAX
from ecryptfs_cuse.serve import DEVICE_MODE, ID_MAX, IdentityRule, Parameters, Transport, serve

logger = logging.getLogger(__name__)

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


_PATIENCE = 5.0
"""Seconds that umount waits for the server's end."""

_PR_SET_DUMPABLE = 4  # linux/prctl.h

_DEFAULTS = Parameters()

_ID = click.IntRange(0, ID_MAX)


def _octal(digits: str) -> int:
    try:
        mode = int(digits, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise click.BadParameter(f"{digits!r} is not a mode: give octal digits, such as 0600")
    return mode


@click.command()
@click.argument("mountpoint")
@click.option(
    "-o",
    "options",
    metavar="OPTIONS",
    help="Options for fusermount3, with commas between; see below.",
)
@click.option("--allow-other", is_flag=True, help="Let users other than the mounting one in.")
@click.option(
    "--mode",
    type=_octal,
    metavar="OCTAL",
    default=f"{DEVICE_MODE:04o}",
    show_default=True,
    help="The mode of dev/ecryptfs.",
)
@click.option("--uid", type=_ID, help="The owner of dev/ecryptfs.  [default: you]")
@click.option("--gid", type=_ID, help="The group of dev/ecryptfs.  [default: yours]")
@click.option(
    "--transport",
    type=click.Choice([transport.value for transport in Transport]),
    default=Transport.CHANNEL.value,
    show_default=True,
    help="How requests reach the device; pyfuse3 is slower and cannot interrupt a read.",
)
@click.option(
    "--identity",
    type=click.Choice([rule.value for rule in IdentityRule]),
    default=IdentityRule.USER_NAMESPACE.value,
    show_default=True,
    help="Whose daemon it is: by uid and user namespace, or by the uid outside, as in Linux 6.1.",
)
@click.option(
    "--bind",
    metavar="PATH",
    help="Put the device at PATH too, for daemons that look nowhere else. Needs root.",
)
@click.option(
    "--message-buf-len",
    type=click.IntRange(0, MESSAGE_BUF_LEN_MAX),
    default=_DEFAULTS.message_buf_len,
    show_default=True,
    help="How many requests can wait at a time, all users together.",
)
@click.option(
    "--contexts-per-user",
    type=click.IntRange(1),
    metavar="N",
    help="How many of them may be one user's, by the uid outside.  [default: no limit]",
)
@click.option(
    "--message-wait-timeout",
    type=float,
    default=_DEFAULTS.message_wait_timeout,
    show_default=True,
    help="How long each waits, in seconds.",
)
@click.option(
    "--number-of-users",
    type=click.IntRange(1),
    default=_DEFAULTS.number_of_users,
    show_default=True,
    help="As with the kernel's module; of no effect here.",
)
@click.option("--background", is_flag=True, help="Go on in the background once it is ready.")
@click.option("-v", "--verbose", count=True, help="Say more on standard error; twice: everything.")
def mount(
    mountpoint: str,
    options: str | None,
    allow_other: bool,
    mode: int,
    uid: int | None,
    gid: int | None,
    transport: str,
    identity: str,
    bind: str | None,
    message_buf_len: int,
    contexts_per_user: int | None,
    message_wait_timeout: float,
    number_of_users: int,
    background: bool,
    verbose: int,
) -> None:
    """Mount the device under MOUNTPOINT, an existing directory, and serve it.

    When it can be opened, one line says so on standard output:

    \b
        ready: MOUNTPOINT/dev/ecryptfs

    It ends with Ctrl-C, SIGTERM, or when it is unmounted, and leaves nothing mounted.

    Options are passed on to fusermount3, which knows allow_other, max_read=N, fsname=NAME, noexec,
    nosuid, nodev, noatime, sync, dirsync and their opposites, and refuses those that it does not
    know. Not for here: auto_unmount, allow_root, blkdev, ro, subtype and what fusermount3 sets
    itself.

    \b
    Example: a device, and the reference daemon on it
        mkdir -p /tmp/ecryptfs
        ecryptfs-cuse mount /tmp/ecryptfs --background
        ecryptfs-keyd --device /tmp/ecryptfs/dev/ecryptfs --key key.pem
    """
    _log(verbose)
    try:
        parameters = Parameters(message_buf_len, message_wait_timeout, number_of_users)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    chosen = mounts.split_options(options or "")
    if allow_other:
        chosen.append("allow_other")
    with _mount_failing():  # now, because a path can be relative
        where = mounts.resolve(mountpoint)
        target = binds.resolve_target(bind) if bind is not None else None

    async def run(ready: Callable[[], None]) -> None:
        with trio.open_signal_receiver(*_STOP_SIGNALS) as signals:
            async with serve(
                where,
                parameters,
                options=chosen,
                transport=Transport(transport),
                mode=mode,
                uid=uid,
                gid=gid,
                identity=IdentityRule(identity),
                contexts_per_user=contexts_per_user,
            ) as device:
                bound = None
                if target is not None:
                    bound = await trio.to_thread.run_sync(binds.bind, device.path, target)
                try:
                    # As octets: not every name can be said in the encoding of the locale.
                    click.echo(
                        b"ready: " + os.fsencode(os.path.join(mountpoint, "dev", "ecryptfs"))
                    )
                    ready()
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(_at_signal, signals, nursery)
                        await device.wait_unmounted()
                        nursery.cancel_scope.cancel()
                finally:
                    if bound is not None:
                        with trio.CancelScope(shield=True):
                            await trio.to_thread.run_sync(binds.unbind, bound)

    def serve_until_stopped(ready: Callable[[], None]) -> None:
        _forbid_core_dumps()
        with _mount_failing():
            trio.run(run, ready)

    if background:
        in_background(serve_until_stopped)
    else:
        serve_until_stopped(lambda: None)


async def _at_signal(signals: AsyncIterator[int], nursery: trio.Nursery) -> None:
    async for number in signals:
        logger.info("stopping: %s", signal.Signals(number).name)
        nursery.cancel_scope.cancel()


def _log(verbose: int) -> None:
    logging.basicConfig(
        level=max(logging.DEBUG, logging.WARNING - 10 * verbose),
        format="ecryptfs-cuse: %(message)s",
    )


def _forbid_core_dumps() -> None:
    """Messages with keys in them pass through this process: no crash may write them down."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


@contextmanager
def _mount_failing() -> Iterator[None]:
    try:
        yield
    except MountError as error:
        raise MountFailed(str(error)) from None


@click.command()
@click.argument("mountpoint")
def umount(mountpoint: str) -> None:
    """Unmount the device at MOUNTPOINT: its server ends, blocked daemons are released.

    Unmounts at once, even if files are open in it or its server does not answer; never what is not
    a device of ecryptfs-cuse. Returns when the server has let go of the device.
    """
    with _mount_failing(), mounts.reach(mountpoint) as root:
        entry = mounts.device_at(root)
        mounts.unmount(entry)
        if not _has_ended(root):
            click.echo(f"{entry.path} is unmounted; its server has not ended yet", err=True)


def _has_ended(root: int) -> bool:
    """Wait until the connection to the server has ended, as far as we are let in."""
    deadline = time.monotonic() + _PATIENCE
    path = f"/proc/self/fd/{root}/control/status"
    while time.monotonic() < deadline:
        try:
            os.close(open_in_time(path, os.O_RDONLY | os.O_CLOEXEC, keep=[root]))
        except TimeoutError:
            return False
        except OSError:  # no server, or none of ours, or none that lets us in
            return True
        time.sleep(0.01)
    return False
