"""Looking at files whose server may never answer, without waiting for it for ever.

Who waits for a FUSE server that has taken the request and does not answer cannot be killed. So
another process looks in our place; when the time is over it is killed, or left behind.
"""

import contextlib
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Sequence

PATIENCE = 5.0
"""Seconds that a server has for an answer."""

_FAREWELL = 1.0
"""Seconds until the process that looked is left behind: its end can wait for a server, too."""

_PYTHON = (sys.executable, "-I", "-S", "-c")
_LOOK = """
import os, socket, sys
answer = socket.socket(fileno=int(sys.argv[1]))
call, path, flags = sys.argv[2:]
try:
    if call == "statvfs":
        os.statvfs(path)
        found = []
    elif call == "read":
        found = [os.memfd_create("content", 0)]
        with open(path, "rb") as file, open(found[0], "wb", closefd=False) as copy:
            copy.write(file.read())
    else:
        found = [os.open(path, int(flags))]
except OSError as error:
    answer.send(str(error.errno).encode())
else:
    socket.send_fds(answer, [b"0"], found)
"""


def open_in_time(path: str, flags: int, *, keep: Sequence[int] = ()) -> int:
    """Like os.open; TimeoutError where the server does not answer.

    keep: descriptors that ``path`` names, such as "/proc/self/fd/7/control".
    """
    return _look("open", path, flags, keep)[0]


def read_in_time(path: str) -> bytes:
    """What is in a file; raises as ``open_in_time``."""
    [copy] = _look("read", path)
    with open(copy, "rb") as file:
        file.seek(0)
        return file.read()


def statvfs_in_time(path: str) -> None:
    """Have the server of a mount asked for something; raises as ``open_in_time``."""
    _look("statvfs", path)


def _look(call: str, path: str, flags: int = 0, keep: Sequence[int] = ()) -> list[int]:
    if "\0" in path:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            looking = subprocess.Popen(
                [*_PYTHON, _LOOK, str(theirs.fileno()), call, path, str(flags)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), *keep],
                start_new_session=True,
            )
        ours.settimeout(PATIENCE)
        try:
            said, found, _, _ = socket.recv_fds(ours, 16, 1, socket.MSG_CMSG_CLOEXEC)
        except BaseException:
            looking.kill()
            raise
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                looking.wait(_FAREWELL)
    if not said:
        raise OSError(errno.ECANCELED, "the process that looked has died")
    if said != b"0":
        number = int(said)
        raise OSError(number, os.strerror(number))
    return list(found)
