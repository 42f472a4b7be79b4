"""The end of a connection to the kernel, whoever else holds its descriptors.

The kernel ends a connection when its last descriptor is closed. A child made by fork has copies: as
long as it lives, whoever has a file of ours open would wait for answers that nobody gives. So the
connection is aborted, where that is possible; and where Python forks, the child lets go.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CONTROL = "/sys/fs/fuse/connections"

_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1  # linux/mount.h
_FSCONFIG_CMD_CREATE = 6


class Abort:
    """The switch that aborts the connection of a file system, whose ``device`` is its st_dev.

    Opened while that is mounted, it can never abort another one, though numbers are used again.
    Without the right to abort it does nothing.
    """

    def __init__(self, device: int) -> None:
        self._descriptor = _open_switch(f"{os.minor(device)}/abort")

    def __call__(self) -> None:
        """Abort: whoever waits for an answer gets an error."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.write(self._descriptor, b"1")

    def close(self) -> None:
        """Let go of the switch."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _open_switch(path: str) -> int | None:
    flags = os.O_WRONLY | os.O_CLOEXEC
    with suppress(OSError):
        return os.open(os.path.join(_CONTROL, path), flags)
    # Root need not have the control file system in its tree of mounts.
    with suppress(OSError, AttributeError), _control_file_system() as directory:
        return os.open(path, flags, dir_fd=directory)
    return None


@contextmanager
def _control_file_system() -> Iterator[int]:
    libc = ctypes.CDLL(None, use_errno=True)
    context = _checked(libc.fsopen(b"fusectl", _FSOPEN_CLOEXEC))
    try:
        _checked(libc.fsconfig(context, _FSCONFIG_CMD_CREATE, None, None, 0))
        mounted = _checked(libc.fsmount(context, _FSMOUNT_CLOEXEC, 0))
    finally:
        os.close(context)
    try:
        yield mounted
    finally:
        os.close(mounted)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "no control file system")
    return result


_ours: set[int] = set()


@contextmanager
def ours_alone(*descriptors: int) -> Iterator[None]:
    """During the block, a child made by Python's fork does not keep the descriptors."""
    _ours.update(descriptors)
    try:
        yield
    finally:
        _ours.difference_update(descriptors)


def _let_go() -> None:
    """Put something else in the descriptors' places, so that their numbers are not used again.

    Whoever in the child still believes that they are open may close them without harm.
    """
    if _ours:
        nothing = os.eventfd(0, os.EFD_CLOEXEC)
        for descriptor in _ours:
            os.dup2(nothing, descriptor, inheritable=False)
        os.close(nothing)
        _ours.clear()


os.register_at_fork(after_in_child=_let_go)
