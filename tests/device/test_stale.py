"""A server that is killed leaves a mount which nobody serves; the next one clears it away."""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ClientFactory
from tests.device.traffic import exchange, open_device, refused
from tests.mounted import MountedDevice, is_mountpoint

Start = Callable[..., MountedDevice]


@pytest.fixture
def start(tmp_path: Path, transport: str) -> Iterator[Start]:
    """Start a server at the same place as the one before."""
    started: list[MountedDevice] = []

    def factory(*arguments: str) -> MountedDevice:
        started.append(MountedDevice(tmp_path / "mount", "--transport", transport, *arguments))
        return started[-1]

    try:
        yield factory
    finally:
        for device in started:
            device.clean_up()
        while is_mountpoint(tmp_path / "ecryptfs"):  # where the test has bound it
            subprocess.run(["umount", "-l", str(tmp_path / "ecryptfs")], check=True)


def kill(device: MountedDevice) -> None:
    """Let the server end as it should not."""
    device.process.kill()
    device.process.communicate()
    assert device.is_mounted


def stop(device: MountedDevice, *cleared: Path) -> None:
    """Let the server end well, having said that it cleared these stale mounts."""
    device.process.terminate()
    lines = [
        f"ecryptfs-cuse: cleared the stale mount at {path}: its server had died\n"
        for path in cleared
    ]
    device.check_end("".join(lines))


def test_the_next_server_clears_a_stale_mount_and_says_so(
    start: Start, clients: ClientFactory
) -> None:
    client = clients()
    killed = start()
    kill(killed)
    device = start()
    descriptor = open_device(client, device)
    assert exchange(device, client, client, descriptor, b"abc") == b"cba"
    stop(device, device.mountpoint)


def test_a_daemon_of_the_server_that_died_stays_cut_off(
    start: Start, clients: ClientFactory
) -> None:
    client = clients()
    killed = start()
    old = open_device(client, killed)
    kill(killed)
    device = start()
    new = open_device(client, device)
    with refused(errno.ENOTCONN):
        client.call("raw_read", old, 100)
    assert exchange(device, client, client, new, b"abc") == b"cba"
    stop(device, device.mountpoint)


def test_the_next_server_clears_a_stale_bound_path_too(
    start: Start, clients: ClientFactory, tmp_path: Path
) -> None:
    target = tmp_path / "ecryptfs"
    target.touch()
    for _ in range(2):
        kill(start("--bind", str(target)))
        assert is_mountpoint(target)
        device = start("--bind", str(target))
        client = clients()
        client.call("os.close", client.call("os.open", str(target), os.O_RDWR))
        stop(device, device.mountpoint, target)
        assert not is_mountpoint(target)
        assert target.read_bytes() == b""
