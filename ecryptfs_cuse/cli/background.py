"""Going to the background, once there is something to be there for."""

import os
import sys
from collections.abc import Callable

import click

_READY = b"r"


def in_background(work: Callable[[Callable[[], None]], None]) -> None:
    """Run ``work`` in a child; return when the child calls its argument, or end as it ends.

    Until then the child has our standard streams, so that it can say what goes wrong; after that
    it has /dev/null. Call before there are threads.
    """
    heard, said = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(heard)
        _be_child(work, said)
    os.close(said)
    with open(heard, "rb") as line:
        if line.read(1) == _READY:
            return
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


def _be_child(work: Callable[[Callable[[], None]], None], said: int) -> None:
    os.setsid()
    os.chdir("/")

    def ready() -> None:
        sys.stdout.flush()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        os.close(nowhere)
        os.write(said, _READY)
        os.close(said)

    try:
        work(ready)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    sys.exit(0)
