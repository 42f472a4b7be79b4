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


class Connection:
    """The connection with that number, while its file system is mounted.

    ``descriptors``: all that this process has of it. Their owners close them, after ``close``.
    """

    def __init__(self, number: int, *descriptors: int) -> None:
        self._descriptors = descriptors
        # A pipe that nobody writes to: reads find its end, event loops can wait for it, and writes
        # are refused without a signal.
        self._nothing, writing = os.pipe()
        os.close(writing)
        # Open from now on: numbers are used again, but this never aborts another connection.
        self._switch = _open_switch(f"{number}/abort")
        _connections.add(self)

    def cut(self) -> None:
        """End the connection: whoever waits for an answer gets an error."""
        if self._switch is not None:
            with suppress(OSError):
                os.write(self._switch, b"1")
        self.let_go()

    def let_go(self) -> None:
        """Put nothing in the descriptors' places, so that their numbers are not used again.

        Whoever still reads there finds the end, and closing does no harm.
        """
        for descriptor in self._descriptors:
            os.dup2(self._nothing, descriptor, inheritable=False)

    def close(self) -> None:
        """Forget the descriptors."""
        _connections.remove(self)
        os.close(self._nothing)
        if self._switch is not None:
            os.close(self._switch)


_connections: set[Connection] = set()


def _let_go_in_child() -> None:
    for connection in _connections:
        connection.let_go()


os.register_at_fork(after_in_child=_let_go_in_child)


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
