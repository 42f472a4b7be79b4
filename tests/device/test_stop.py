"""All the ways in which a server ends: nothing stays mounted, nobody stays blocked."""

import errno
import os
import select
import signal
import subprocess
from pathlib import Path

import pytest

from tests.client import PATIENCE
from tests.conftest import ClientFactory, MountFactory
from tests.device.traffic import PACKET_MAX, ask, open_device, refused
from tests.mounted import COMMAND, MountedDevice, is_mountpoint

SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"]
ECRYPTFS_UMOUNT = " ".join((*COMMAND, "umount"))


def stop(device: MountedDevice, way: str) -> None:
    """End it by a signal, or by a command that unmounts it."""
    if way in SIGNALS:
        device.process.send_signal(signal.Signals[way])
    else:
        command = ECRYPTFS_UMOUNT if way == "ecryptfs-cuse umount" else way
        subprocess.run([*command.split(), str(device.mountpoint)], check=True)


@pytest.mark.parametrize("way", ["SIGINT", "fusermount3 -u", "umount", "umount -f"])
def test_an_idle_server_ends_well(mount: MountFactory, way: str) -> None:
    device = mount()
    stop(device, way)
    device.check_end()


@pytest.mark.parametrize("way", [*SIGNALS, "ecryptfs-cuse umount", "umount -l"])
def test_a_server_that_ends_lets_nobody_wait_any_more(
    mount: MountFactory, clients: ClientFactory, way: str
) -> None:
    device = mount()
    reading, polling, asking, holding = clients(1000), clients(1001), clients(1001), clients(1002)
    read_from, poll_from = open_device(reading, device), open_device(polling, device)
    held = open_device(holding, device)
    poll = polling.start("poll", poll_from, 0, 20.0)
    poll.wait_blocked()
    answer = asking.start("raw_read", ask(asking, device, b"anybody?"), PACKET_MAX)
    read = reading.start("raw_read", read_from, PACKET_MAX)
    answer.wait_blocked()
    read.wait_blocked()
    stop(device, way)
    device.check_end()
    assert read.result() == b""
    with refused(errno.ESHUTDOWN):
        answer.result()
    assert poll.result() == select.POLLERR
    with refused(errno.ENOTCONN):
        holding.call("raw_read", held, PACKET_MAX)


def test_a_daemon_that_goes_on_finds_the_device_gone(
    mount: MountFactory, clients: ClientFactory
) -> None:
    device = mount()
    client = clients()
    descriptor = open_device(client, device)
    device.stop()
    for call in (("raw_read", descriptor, 100), ("os.write", descriptor, b"d\0\0\0\0")):
        with refused(errno.ENOTCONN):
            client.call(*call)
    assert client.call("poll", descriptor, 0xFFFF, 0) == select.POLLERR
    with refused(errno.ENOENT):
        open_device(client, device)


def test_a_plain_umount_is_refused_while_a_daemon_has_the_device_open(
    mount: MountFactory, clients: ClientFactory
) -> None:
    device = mount()
    client = clients()
    descriptor = open_device(client, device)
    for command in (["umount"], ["fusermount3", "-u"]):
        done = subprocess.run(
            [*command, str(device.mountpoint)], capture_output=True, text=True, check=False
        )
        assert done.returncode != 0
        assert "busy" in done.stderr
    assert client.call("os.write", descriptor, b"d\0\0\0\0") == 5


def test_a_server_that_was_killed_leaves_nobody_blocked(
    mount: MountFactory, clients: ClientFactory
) -> None:
    device = mount()
    reading, asking = clients(1000), clients(1001)
    read = reading.start("raw_read", open_device(reading, device), PACKET_MAX)
    open_device(asking, device)
    answer = asking.start("raw_read", ask(asking, device, b"anybody?"), PACKET_MAX)
    read.wait_blocked()
    answer.wait_blocked()
    device.process.kill()
    for call in (read, answer):
        with refused(errno.ECONNABORTED, errno.ENOTCONN):
            call.result()
    device.process.communicate()
    with refused(errno.ENOTCONN):
        open_device(reading, device)
    assert device.is_mounted
    subprocess.run([*ECRYPTFS_UMOUNT.split(), str(device.mountpoint)], check=True)
    assert not device.is_mounted


def test_a_new_server_can_start_where_one_has_ended(
    mount: MountFactory, clients: ClientFactory
) -> None:
    client = clients()
    for number in range(2):
        device = mount()
        again = MountedDevice(device.mountpoint.with_name(f"again{number}"))
        again.stop()
        descriptor = open_device(client, device)
        client.call("os.close", descriptor)
        device.stop()
        assert os.listdir(device.mountpoint) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_as_soon_as_it_is_mounted_leaves_nothing_mounted(
    tmp_path: Path, transport: str, number: signal.Signals
) -> None:
    process = subprocess.Popen(
        [*COMMAND, "mount", str(tmp_path), "--transport", transport],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    while not is_mountpoint(tmp_path):
        assert process.poll() is None
    process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said) == (0, b"")
    assert not is_mountpoint(tmp_path)
