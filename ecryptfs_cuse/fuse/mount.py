"""Mounting and unmounting, for root and for ordinary users alike: through fusermount3.

Everything here blocks; call it from a thread. A mount point is an absolute path without symbolic
links (see ``resolve``).
"""

import errno
import logging
import os
import re
import select
import socket
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger(__name__)

FSNAME = "ecryptfs-cuse"
_FSTYPE = f"fuse.{FSNAME}"


class MountError(Exception):
    """The file system could not be mounted or unmounted; the message says what to do."""


def resolve(path: str | os.PathLike[str]) -> str:
    """The path as the kernel's list of mounts writes it.

    Only the parent is looked at: the mount point itself may be one that no server serves any more.
    """
    whole = Path(path).absolute()
    return str(whole.parent.resolve() / whole.name) if whole.name else str(whole.resolve())


def mount_ids(mountpoint: str) -> list[int]:
    """The ids of the file systems mounted at ``mountpoint``, the lowest first.

    A mount id is not used twice while its mount is in the list.
    """
    return [mount_id for mount_id, _ in _mounts(mountpoint)]


def _mounts(mountpoint: str) -> list[tuple[int, str]]:
    """The mounts at ``mountpoint``: id and type (proc(5), mountinfo)."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            fields = line.split(" ")
            if _unescape(fields[4]) == mountpoint:
                found.append((int(fields[0]), fields[fields.index("-") + 1]))
    return found


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field)


class MountWatch:
    """Tells when the mount now at ``mountpoint`` is gone from the list of mounts.

    It may be gone from there with files still open in it.
    """

    def __init__(self, mountpoint: str) -> None:
        self._mountpoint = mountpoint
        self._mounts = set(mount_ids(mountpoint)[-1:])
        self._list = open("/proc/self/mountinfo", "rb")  # noqa: SIM115  # held until close
        self._changes = select.epoll()
        self._changes.register(self._list, select.EPOLLPRI | select.EPOLLET)

    def fileno(self) -> int:
        """A descriptor that is readable when the list has changed."""
        return self._changes.fileno()

    def is_mounted(self) -> bool:
        """Whether the mount is in the list; waits for the next change from here on."""
        self._changes.poll(0)
        return not self._mounts.isdisjoint(mount_ids(self._mountpoint))

    def close(self) -> None:
        """Stop watching."""
        self._changes.close()
        self._list.close()


def is_stale(path: str) -> bool:
    """Whether a FUSE file system is at ``path`` whose server has died."""
    try:
        os.statvfs(path)  # not stat: the kernel may still know the attributes
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def _clear_stale(path: str) -> None:
    while is_stale(path):
        unmount(path)
        _say_cleared(path)


def _say_cleared(path: str) -> None:
    logger.warning("cleared the stale mount at %s: its server had died", path)


def mount(mountpoint: str, options: Iterable[str]) -> int:
    """Mount, and return the descriptor of the connection, from which requests are to be read.

    Clears a stale mount away before. Raises MountError.
    """
    _clear_stale(mountpoint)
    if not os.path.isdir(mountpoint):
        raise MountError(f"{mountpoint} is not a directory: create it first")
    if any(kind == _FSTYPE for _, kind in _mounts(mountpoint)):
        raise MountError(f"{mountpoint} serves a device already: unmount it first")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = ["-o", ",".join([f"fsname={FSNAME}", f"subtype={FSNAME}", *options])]
        _fusermount(
            [*command, "--", mountpoint],
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
            pass_fds=(theirs.fileno(),),
        )
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1, socket.MSG_CMSG_CLOEXEC)
    if not descriptors:
        raise MountError(f"fusermount3 mounted {mountpoint} but passed no descriptor")
    return descriptors[0]


def unmount(mountpoint: str) -> None:
    """Take the topmost mount away now, files still open in it or not. Raises MountError."""
    _fusermount(["-u", "-z", "--", mountpoint])


def bind(source: str, target: str) -> bool:
    """Make the file ``source`` appear at ``target`` too; whether ``target`` had to be created.

    Clears away a file that a server which died has left bound there. Raises MountError.
    """
    if is_stale(target):
        unbind(target, remove=False)
        _say_cleared(target)
    created = not os.path.lexists(target)
    try:
        if created:
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0o600))
        _run(["mount", "--bind", "--", source, target])
    except OSError as error:
        raise MountError(f"cannot create {target}: {error.strerror}") from error
    except MountError:
        if created:
            os.unlink(target)
        raise
    return created


def unbind(target: str, remove: bool) -> None:
    """Undo ``bind``, or what is left of it; ``remove`` is what it returned. Raises MountError."""
    if mount_ids(target):
        _run(["umount", "-l", "--", target])
    if remove:
        with suppress(FileNotFoundError):
            os.unlink(target)


def _fusermount(
    arguments: list[str], env: dict[str, str] | None = None, pass_fds: tuple[int, ...] = ()
) -> None:
    _run(["fusermount3", *arguments], env, pass_fds)


def _run(
    command: list[str], env: dict[str, str] | None = None, pass_fds: tuple[int, ...] = ()
) -> None:
    try:
        done = subprocess.run(
            command, env=env, pass_fds=pass_fds, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise MountError(f"{command[0]} is missing: install it (Debian: fuse3, mount)") from None
    if done.returncode != 0:
        said = done.stderr.strip().removeprefix(f"{command[0]}: ")
        raise MountError(f"{command[0]} failed: {said or f'exit status {done.returncode}'}")
