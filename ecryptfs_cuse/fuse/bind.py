"""Making the device's file appear at another path too: a bind mount, for root.

Where nothing is at that path a placeholder is made for the mount. It says what it is, so that the
next server knows what one that was killed has left, and takes nobody's file for it.

Everything here blocks; call it from a thread.
"""

import contextlib
import ctypes
import errno
import os
import stat
from dataclasses import dataclass

from ecryptfs_cuse.fuse.mount import make_free, one_at_a_time, system_call, unmount
from ecryptfs_cuse.fuse.mountinfo import Entry, MountError, entry_of, now, path_of, stack
from ecryptfs_cuse.fuse.patience import open_in_time

_MS_BIND = ctypes.c_ulong(4096)  # linux/mount.h

_MEMORY_DEVICES = 1  # the major number, linux/major.h

_PLACEHOLDER = b"""\
A device of ecryptfs-cuse was here, and its server was killed. Remove this file, or start the server
with --bind for this path again.
"""


@dataclass(frozen=True)
class Bound:
    """What ``bind`` has mounted, and where it did."""

    entry: Entry
    path: str


def resolve_target(target: str) -> str:
    """The path, without symbolic links, of a file, or of one that can be made in a directory.

    Raises MountError.
    """
    try:
        path = _resolved(target)
    except FileNotFoundError as error:
        directory, name = os.path.split(target)
        if name in ("", ".", "..") or os.path.islink(target):
            raise MountError(f"cannot create {target}: {error.strerror}") from error
    except OSError as error:
        raise MountError(f"cannot open {target}: {error.strerror or 'no answer'}") from error
    else:
        if _is_directory(path):
            raise MountError(f"{path} is a directory: name a file, or a new name in a directory")
        if _is_memory_device(path):
            raise MountError(f"{path} is a device that all programs use: choose another path")
        return path
    try:
        return os.path.join(_resolved(directory or "."), name)
    except OSError as error:
        raise MountError(f"cannot create {target}: {error.strerror or 'no answer'}") from error


def _resolved(path: str) -> str:
    descriptor = open_in_time(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return path_of(descriptor)
    finally:
        os.close(descriptor)


def _is_directory(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _is_memory_device(path: str) -> bool:
    """Whether it is /dev/null or one of its kind."""
    try:
        found = os.stat(path)
    except OSError:
        return False
    return stat.S_ISCHR(found.st_mode) and os.major(found.st_rdev) == _MEMORY_DEVICES


def bind(source: str, target: str) -> Bound:
    """Make the file ``source``, of a device, appear at ``target``, which ``resolve_target`` gave.

    Clears away what a server that died has left there. Raises MountError.
    """
    with one_at_a_time(os.path.dirname(target)):
        try:
            if not _made_placeholder(target):
                make_free(target)
            return Bound(_bind(source, target), target)
        except BaseException as error:
            _remove_placeholder(target)
            if isinstance(error, OSError):
                needs = ": it needs root" if error.errno == errno.EPERM else ""
                raise MountError(f"cannot bind {target}: {error.strerror}{needs}") from error
            raise


def _made_placeholder(path: str) -> bool:
    """Whether nothing was at ``path``, so that there is a placeholder now."""
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _refuse_device(directory, path)
        name = os.path.basename(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        placeholder = os.open(name, flags, 0o600, dir_fd=directory)
        try:
            with open(placeholder, "wb") as file:
                file.write(_PLACEHOLDER)
        except OSError:  # a full disk: what is not written whole would not be known as ours
            os.unlink(name, dir_fd=directory)
            raise
    except FileExistsError:
        return False
    finally:
        os.close(directory)
    return True


def _remove_placeholder(path: str) -> None:
    with contextlib.suppress(OSError):
        if stack(path):
            return
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if file.read(len(_PLACEHOLDER) + 1) == _PLACEHOLDER:
                os.unlink(path)


def _refuse_device(descriptor: int, path: str) -> None:
    if entry_of(descriptor).is_ours:
        raise MountError(f"{path} is inside a device: choose a path outside")


def _bind(source: str, target: str) -> Entry:
    with contextlib.ExitStack() as held:
        paths = []
        for path in (source, target):
            descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            held.callback(os.close, descriptor)
            paths.append(f"/proc/self/fd/{descriptor}".encode())
        _refuse_device(descriptor, target)
        system_call("mount", *paths, None, _MS_BIND, None)
    return next(entry for entry in stack(target) if entry.is_ours)


def unbind(bound: Bound) -> None:
    """Undo ``bind``, or what is left of it. Raises MountError."""
    found = now(bound.entry)
    path = bound.path if found is None else found.path
    unmount(bound.entry)
    with one_at_a_time(os.path.dirname(path)):
        _remove_placeholder(path)
