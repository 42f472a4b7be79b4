"""Going to the background, once there is something to be there for."""

import os
import signal
import sys
from collections.abc import Callable

from ecryptfs_cuse.cli.errors import MountFailed
from ecryptfs_cuse.cli.log import flush_log
from ecryptfs_cuse.cli.streams import redirect_to_nowhere

_READY = b"r"


def in_background(work: Callable[[Callable[[], None]], None]) -> None:
    """Run ``work`` in a child; return when the child calls its argument, or end as it ends.

    Until then the child has our standard streams, so that it can say what goes wrong; after that
    it has /dev/null. Where we are interrupted before, or killed, it ends too. Call before there
    are threads, with all standard streams open (see cli/streams.py).
    """
    heard, said = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(heard)
        _be_child(work, said)
    os.close(said)
    try:
        with open(heard, "rb") as line:
            if line.read(1) == _READY:
                return
        _, status = os.waitpid(child, 0)
    except BaseException:
        os.kill(child, signal.SIGTERM)
        raise
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        raise MountFailed(f"the server was ended by {signal.Signals(-code).name}")
    sys.exit(code)


def _be_child(work: Callable[[Callable[[], None]], None], said: int) -> None:
    os.setsid()
    os.chdir("/")

    def ready() -> None:
        flush_log()
        redirect_to_nowhere(0, 1, 2)
        os.write(said, _READY)  # fails where nobody waits for us any more: then we end
        os.close(said)

    work(ready)
    sys.exit(0)
