"""The standard streams: there, whatever we were started with, and nothing that one can hang on."""

import errno
import os
import select
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

LIMIT = 1.0
"""Seconds that a line waits for its reader."""

# So opened that their use fails with EBADF, as that of a closed descriptor does.
_MISSING = {"stdin": os.O_WRONLY, "stdout": os.O_RDONLY, "stderr": os.O_RDONLY}


def prepare() -> None:
    """Have all standard streams, whatever we were started with.

    Where one was closed /dev/null takes its place. Otherwise what we open next, such as a pipe or
    the device, would be taken for it. Call it before anything is opened.
    """
    for descriptor, (name, flags) in enumerate(_MISSING.items()):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, flags)  # takes the lowest free descriptor: this one
            os.set_inheritable(descriptor, True)
        stream = getattr(sys, name)
        # With PYTHONUNBUFFERED nothing is left over for write_error to see.
        is_unbuffered = stream is sys.__stdout__ and getattr(stream, "write_through", False)
        if stream is None or is_unbuffered:
            mode = "r" if name == "stdin" else "w"
            stream = open(descriptor, mode, errors="backslashreplace", closefd=False)  # noqa: SIM115  # for good
            setattr(sys, name, stream)


def redirect_to_nowhere(*descriptors: int) -> None:
    """Have /dev/null in the place of descriptors."""
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in descriptors:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def write_error(stream: TextIO) -> OSError | None:
    """Why what was written to a stream cannot reach its reader; None if it has.

    After an error the stream goes nowhere, so that the interpreter's end does not fail in the same
    way once more.
    """
    try:
        stream.flush()
    except OSError as error:
        redirect_to_nowhere(stream.fileno())
        return error
    return None


def shown(text: str) -> bytes:
    """``text`` for people: what the locale does not have is escaped, as \\xff for an octet."""
    encoding = sys.getfilesystemencoding()
    with suppress(UnicodeEncodeError):
        text = os.fsencode(text).decode(encoding, "backslashreplace")
    return text.encode(encoding, "backslashreplace")


def exact(text: str) -> bytes:
    """``text`` for programs: a name in it is the octets that it was given as."""
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:
        return shown(text)


def say(text: str, encoded: Callable[[str], bytes] = exact) -> None:
    """Write a line to standard output, if it can be within LIMIT; else it is lost."""
    _write(1, encoded(f"{text}\n"))


def complain(text: str) -> None:
    """Write a line to standard error, if it can be within LIMIT; else it is lost."""
    _write(2, shown(f"{text}\n"))


def _write(descriptor: int, data: bytes) -> None:
    deadline = time.monotonic() + LIMIT
    poller = select.poll()
    poller.register(descriptor, select.POLLOUT)
    while data and poller.poll(max(deadline - time.monotonic(), 0) * 1000):
        try:
            # So much fits into a pipe that is ready (pipe(7)).
            data = data[os.write(descriptor, data[: select.PIPE_BUF]) :]
        except OSError as error:
            if error.errno != errno.EAGAIN:
                return
