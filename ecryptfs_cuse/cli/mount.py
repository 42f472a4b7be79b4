"""ecryptfs-cuse mount and umount."""

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
from ecryptfs_cuse.cli.log import log_to_standard_error
from ecryptfs_cuse.cli.streams import say
from ecryptfs_cuse.cli.surroundings import forbid_core_dumps, stop_signals
from ecryptfs_cuse.fuse import bind as binds
from ecryptfs_cuse.fuse import mount as mounts
from ecryptfs_cuse.fuse.mountinfo import MountError
from ecryptfs_cuse.fuse.patience import open_in_time
from ecryptfs_cuse.nodes.parameters import MESSAGE_BUF_LEN_MAX
from ecryptfs_cuse.serve import DEVICE_MODE, ID_MAX, IdentityRule, Parameters, Transport, serve

logger = logging.getLogger(__name__)

_PATIENCE = 5.0
"""Seconds that umount waits for the server's end."""

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
    help="Options for fusermount3, separated by commas; see above.",
)
@click.option(
    "--allow-other",
    is_flag=True,
    help="Let other users in. They also need --mode 0666 to open the device.",
)
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
    help="What a user is: a uid in a user namespace, or a uid alone, as in Linux 6.1.",
)
@click.option(
    "--bind",
    metavar="PATH",
    help="Make the device appear at PATH too, for daemons with a fixed path. Needs root. Its users "
    "must trust one another; among others, make PATH a symbolic link instead.",
)
@click.option(
    "--message-buf-len",
    type=click.IntRange(0, MESSAGE_BUF_LEN_MAX),
    default=_DEFAULTS.message_buf_len,
    show_default=True,
    help="How many requests can wait at once, over all users.",
)
@click.option(
    "--contexts-per-user",
    type=click.IntRange(1),
    metavar="N",
    help="How many of them one user may have, in all user namespaces.  [default: no limit]",
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
    help="Shown as the kernel's module shows it; has no effect.",
)
@click.option(
    "--background",
    is_flag=True,
    help="Return once the device is ready, and serve on in the background.",
)
@click.option(
    "-v", "--verbose", count=True, help="Log more to standard error; given twice, log everything."
)
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

    \b
    Under MOUNTPOINT are
        dev/ecryptfs       the device
        control/request    raises a request as the user who opens it
        control/status     daemons, requests and totals, as JSON
        sys/               what daemons look for under /sys
    dev and control lead each user to a directory of their own below users, which
    nobody else but root can enter. Nobody but you and root can list MOUNTPOINT;
    others name the files.

    Options are passed on to fusermount3, which knows allow_other, max_read=N, fsname=NAME, noexec,
    nosuid, nodev, noatime, sync, dirsync and their opposites, and refuses others. These cannot be
    used: auto_unmount, allow_root, blkdev, ro, subtype, and what fusermount3 sets itself.

    \b
    Example: a device, and the reference daemon on it
        mkdir -p /tmp/ecryptfs
        ecryptfs-cuse mount /tmp/ecryptfs --background
        ecryptfs-keyd --device /tmp/ecryptfs/dev/ecryptfs --key key.pem
    """
    try:
        parameters = Parameters(message_buf_len, message_wait_timeout, number_of_users)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    chosen = mounts.split_options(options or "")
    if allow_other:
        chosen.append("allow_other")
    is_shared = "allow_other" in chosen and Transport(transport) is Transport.PYFUSE3
    with _mount_failing():  # now, because a path can be relative
        where = mounts.resolve(mountpoint)
        target = binds.resolve_target(bind) if bind is not None else None

    def say_ready(ready: Callable[[], None]) -> None:
        say(f"ready: {os.path.join(mountpoint, 'dev', 'ecryptfs')}")
        ready()

    async def run(ready: Callable[[], None]) -> None:
        with stop_signals() as signals:
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
                    await trio.to_thread.run_sync(say_ready, ready)
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(_at_signal, signals, nursery)
                        await device.wait_unmounted()
                        nursery.cancel_scope.cancel()
                finally:
                    if bound is not None:
                        with trio.CancelScope(shield=True):
                            await trio.to_thread.run_sync(binds.unbind, bound)

    def serve_until_stopped(ready: Callable[[], None]) -> None:
        log_to_standard_error(verbose)
        forbid_core_dumps()
        if is_shared:
            logger.warning("with --transport pyfuse3 users must trust one another")
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

    Unmounts at once, even if files are open in it or its server does not answer. Refuses what is
    not a device of ecryptfs-cuse. Returns when the server has let go of the device.
    """
    with _mount_failing(), mounts.reach(mountpoint) as root:
        entry = mounts.device_at(root)
        mounts.unmount(entry)
        if not _has_ended(root):
            click.echo(
                f"{entry.path} is unmounted, but its server is still running",
                err=True,
            )


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
