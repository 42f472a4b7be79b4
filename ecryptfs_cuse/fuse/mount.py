"""Mounting and unmounting, for root and for ordinary users alike.

Everything here blocks; call it from a thread. A mount is what ``mount`` returned, wherever it is by
now (mountinfo.py); nothing here unmounts anything else.
"""

import contextlib
import ctypes
import errno
import fcntl
import logging
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator

from ecryptfs_cuse.fuse.mountinfo import (
    FSNAME,
    Entry,
    MountError,
    entries,
    entry_of,
    now,
    path_of,
    stack,
)
from ecryptfs_cuse.fuse.patience import PATIENCE, open_in_time, statvfs_in_time

logger = logging.getLogger(__name__)

_MNT_DETACH = 2  # linux/mount.h

_REFUSED_OPTIONS = {
    "auto_unmount": "the server unmounts at its end, and the next one what a killed one left",
    "allow_root": "use allow_other instead: it lets root in too",
    "blkdev": "there is no block device behind it",
    "fsblk": "there is no block device behind it",
    "ro": "a daemon must write to the device",
    "subtype": "the type tells ecryptfs-cuse its mounts from others",
    **dict.fromkeys(("fd", "rootmode", "user_id", "group_id"), "fusermount3 sets it"),
}

_HINTS = {
    "No space left on device": "there are too many mounts: see the sysctl fs.mount-max",
    "Operation not permitted": "mounting is not allowed here: a container needs CAP_SYS_ADMIN",
    "not found in /etc/mtab": "it is another user's: unmount it as that user, or as root",
    "could not determine username": "this uid has no entry in /etc/passwd",
    "device not found": "load the kernel's module: modprobe fuse",
}


@contextlib.contextmanager
def reach(path: str | os.PathLike[str], flags: int = 0) -> Iterator[int]:
    """An O_PATH descriptor of what is at ``path``, for as long as the block runs.

    Does not wait for ever for a server on the way, and asks none that is mounted there: that one
    may be stopped, or dead. While it is held, nobody can unmount but lazily. Raises MountError.
    """
    given = os.fsdecode(path)
    if not given:
        raise MountError("the name of the mount point is empty: name a directory")
    try:
        descriptor = open_in_time(given, os.O_PATH | os.O_CLOEXEC | flags)
    except TimeoutError:
        raise MountError(
            f"cannot open {given}: a file system on its path does not answer"
        ) from None
    except OSError as error:
        if flags & os.O_DIRECTORY and error.errno == errno.ENOENT:
            raise MountError(f"{given} is not a directory: create it first") from error
        if flags & os.O_DIRECTORY and error.errno == errno.ENOTDIR:
            raise MountError(f"{given} is not a directory: name one") from error
        if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
            raise MountError(
                f"cannot open {given}: its server has died: give a path that does "
                "not lead through it, such as an absolute one"
            ) from error
        raise MountError(f"cannot open {given}: {error.strerror}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def resolve(path: str | os.PathLike[str]) -> str:
    """The path of an existing directory, as the kernel's list of mounts writes it.

    Waits for no server longer than ``reach``. Raises MountError.
    """
    with reach(path, os.O_DIRECTORY) as descriptor:
        return path_of(descriptor)


def device_at(root: int) -> Entry:
    """The device of ours that is mounted where ``root`` leads. Raises MountError."""
    path = path_of(root)
    mounted = _stack(path)
    if not mounted:
        raise MountError(f"nothing is mounted at {path}")
    if mounted[0].is_ours:
        return mounted[0]
    for entry in mounted:
        if entry.is_ours:
            raise MountError(_covered(entry, mounted[0]))
    raise MountError(
        f"{path} is not a device of ecryptfs-cuse, but a mount of type {mounted[0].fstype}: "
        "use umount(8) for it"
    )


def is_stale(path: str) -> bool:
    """Whether the server of what is mounted at ``path`` has died.

    Raises TimeoutError where it neither answers nor has died.
    """
    try:
        statvfs_in_time(path)  # not stat: the kernel may still know the attributes
    except TimeoutError:
        raise
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def mount(mountpoint: str, options: Iterable[str]) -> tuple[int, Entry]:
    """Mount at ``mountpoint``, which ``resolve`` returned.

    Returns the descriptor of the connection, from which requests are to be read, and the mount.
    Clears a stale mount away before. Raises MountError.
    """
    if mountpoint == "/":
        raise MountError("the device would hide the root directory: choose another directory")
    joined = _joined(options)
    make_free(mountpoint)
    with one_at_a_time(mountpoint) as beneath:
        make_free(mountpoint)
        before = entries()
        try:
            device = _have_mounted(mountpoint, joined)
        except BaseException:
            # fusermount3 may have got so far all the same: it may have been killed.
            for entry in _new_at(mountpoint, before):
                if is_stale(mountpoint):
                    unmount(entry)
            raise
        # Where the directory is by now.
        for entry in _new_at(path_of(beneath), before):
            return device, entry
        os.close(device)
        raise MountError(f"{mountpoint} was unmounted right after it was mounted: try again")


def _new_at(path: str, before: dict[int, Entry]) -> list[Entry]:
    """The devices at ``path`` that were not there ``before``."""
    return [
        entry
        for entry in entries().values()
        if entry.is_ours and entry.path == path and entry.id not in before
    ]


def _joined(options: Iterable[str]) -> str:
    """The options as fusermount3 takes them. Raises MountError for those that are not for here."""
    chosen = split_options(",".join(options))
    for name in (option.partition("=")[0] for option in chosen):
        if name in _REFUSED_OPTIONS:
            raise MountError(f"the option {name} cannot be used: {_REFUSED_OPTIONS[name]}")
    return ",".join([f"fsname={FSNAME}", f"subtype={FSNAME}", *chosen])


def split_options(text: str) -> list[str]:
    r"""Options with commas between; a comma after a backslash belongs to its option."""
    return list(re.findall(r"(?:\\.|[^,\\]|\\$)+", text, re.DOTALL))


def make_free(path: str) -> None:
    """See to it that no device of ours is mounted at ``path``, clearing stale ones away.

    Raises MountError where one is served.
    """
    while True:
        mounted = _stack(path)
        devices = [entry for entry in mounted if entry.is_ours]
        if not devices:
            return
        if devices[0] != mounted[0]:
            raise MountError(_covered(devices[0], mounted[0]))
        try:
            if not is_stale(path):
                raise MountError(f"{path} serves a device already: unmount it first")
        except TimeoutError:
            raise MountError(
                f"{path} serves a device already, and its server does not answer: unmount it first"
            ) from None
        unmount(devices[0])
        logger.warning("cleared the stale mount at %s: its server had died", path)


def _stack(path: str) -> list[Entry]:
    try:
        return stack(path)
    except OSError as error:
        raise MountError(f"cannot open {path}: {error.strerror}") from error


@contextlib.contextmanager
def one_at_a_time(directory: str) -> Iterator[int]:
    """Hold off others who would mount something of ours at, or in, ``directory`` during the block.

    Yields an O_PATH descriptor of the directory. The lock is flock(2)'s: whoever may read the
    directory can hold it, so it is not waited for without end. Where we may not read, or a device
    is there already, there is none. Raises MountError.
    """
    with reach(directory, os.O_DIRECTORY) as found, contextlib.ExitStack() as held:
        if not entry_of(found).is_ours:
            with contextlib.suppress(OSError):
                # By descriptor, and so beneath whatever is mounted there in this moment.
                lock = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
                held.callback(os.close, lock)
                _lock(lock)
        yield found


def _lock(descriptor: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.01)
        else:
            return


def _have_mounted(mountpoint: str, options: str) -> int:
    """Have fusermount3 mount, and receive the descriptor of the connection from it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        _fusermount(
            ["-o", options, "--", mountpoint],
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
            pass_fds=(theirs.fileno(),),
        )
        theirs.close()
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1, socket.MSG_CMSG_CLOEXEC)
    if not descriptors:
        raise MountError(f"fusermount3 mounted {mountpoint} but passed no descriptor")
    return descriptors[0]


def unmount(entry: Entry) -> None:
    """Take this mount away now, wherever it is, files still open in it or not.

    Asks its server nothing. Does nothing where it is gone already. Raises MountError, and takes
    nothing away, where something else is mounted on top.
    """
    found = now(entry)
    if found is None:
        return
    try:
        descriptor = os.open(found.path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        if now(entry) is None:
            return
        raise MountError(f"cannot reach the mount at {found.path}: {error.strerror}") from error
    try:
        # umount2(2) takes away what is on top, even if it is given a descriptor of what is beneath.
        top = entry_of(descriptor)
        if top.id != entry.id:
            raise MountError(_covered(found, top))
        system_call("umount2", f"/proc/self/fd/{descriptor}".encode(), _MNT_DETACH)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise MountError(f"cannot unmount {found.path}: {error.strerror}") from error
        _fusermount(["-u", "-z", "--", found.path])
    except MountError:
        if now(entry) is not None:
            raise
    finally:
        os.close(descriptor)


def _covered(entry: Entry, top: Entry) -> str:
    return (
        f"another mount ({top.fstype}) is on top of the device at {entry.path}: "
        f"unmount that first, then: ecryptfs-cuse umount {entry.path}"
    )


def system_call(name: str, *arguments: bytes | int | ctypes.c_ulong | None) -> None:
    """A system call that Python does not have. Raises OSError."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _fusermount(
    arguments: list[str], env: dict[str, str] | None = None, pass_fds: tuple[int, ...] = ()
) -> None:
    try:
        done = subprocess.run(
            ["fusermount3", *arguments],
            env=env,
            pass_fds=pass_fds,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            start_new_session=True,  # Ctrl-C in a terminal is meant for us, and not for it
        )
    except FileNotFoundError:
        raise MountError("fusermount3 is missing: install it (Debian: fuse3)") from None
    except OSError as error:
        raise MountError(f"cannot run fusermount3: {error.strerror}") from error
    if done.returncode != 0:
        said = os.fsdecode(done.stderr).strip().removeprefix("fusermount3: ")
        hints = [f": {hint}" for text, hint in _HINTS.items() if text in said]
        raise MountError(
            f"fusermount3 failed: {said or f'exit status {done.returncode}'}{''.join(hints)}"
        )
