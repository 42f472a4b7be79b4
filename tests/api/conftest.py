"""Fixtures of the tests of the trio API: the test's own process serves, others use the device."""

import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio

from tests.api.daemon import Daemon
from tests.conftest import ClientFactory, let_everyone_in
from tests.mounted import is_mountpoint

StartDaemon = Callable[..., Awaitable[Daemon]]


@pytest.fixture
def mountpoint(tmp_path: Path) -> Iterator[Path]:
    """A directory to mount at; at the end nothing may be mounted there."""
    assert os.geteuid() == 0, "the tests act as several users: run as root"
    let_everyone_in(tmp_path)
    where = tmp_path / "mount"
    where.mkdir()
    yield where
    if is_mountpoint(where):
        subprocess.run(["fusermount3", "-u", "-z", str(where)], check=True)
        raise AssertionError("the device is still mounted")


@pytest.fixture
def daemon_at(clients: ClientFactory) -> StartDaemon:
    """Open a device as a daemon of any user, in a process of its own."""

    async def start(path: str, uid: int = 0) -> Daemon:
        client = await trio.to_thread.run_sync(clients, uid)
        descriptor = await trio.to_thread.run_sync(client.call, "os.open", path, os.O_RDWR)
        return Daemon(client, descriptor)

    return start
