"""Servers that tests/mounted.py cannot start: with other streams, or none, in odd surroundings."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.client import PATIENCE
from tests.mounted import is_mountpoint


def wait_mounted(process: subprocess.Popen[bytes], where: Path) -> None:
    """Wait until it is mounted and answers; fails where the process ends instead."""
    deadline = time.monotonic() + PATIENCE
    while not is_mountpoint(where):
        assert process.poll() is None, f"it has ended with {process.returncode}"
        assert time.monotonic() < deadline
        os.sched_yield()
    assert (where / "control" / "status").read_text()


@contextmanager
def ending(process: subprocess.Popen[bytes], where: Path) -> Iterator[None]:
    """After the block a server is ended, and must end well; nothing is left in any case."""
    with process:  # which closes its streams
        try:
            yield
            process.terminate()
            assert process.wait(PATIENCE) == 0
            assert not is_mountpoint(where)
        finally:
            process.kill()
            process.wait()
            unmount(where)


def unmount(where: Path) -> None:
    """What a test has left behind."""
    if is_mountpoint(where):
        subprocess.run(["fusermount3", "-u", "-z", str(where)], check=True)
