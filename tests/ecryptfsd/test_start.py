from pathlib import Path

import pytest

from ecryptfs_cuse.wire.tags import Tag64
from tests.conftest import ClientFactory, MountFactory
from tests.ecryptfsd.conftest import DaemonFactory, InsideFactory
from tests.ecryptfsd.daemon import DEVICE_REFUSED
from tests.ecryptfsd.device_log import log_at_end
from tests.ecryptfsd.exchange import UNKNOWN_SIGNATURE, ask
from tests.ecryptfsd.namespace import PrivateNamespace
from tests.mounted import MountedDevice

OTHER_UID = 1234


def test_it_registers_writes_helo_and_reads(mount: MountFactory, daemons: DaemonFactory) -> None:
    device = mount("-v")
    daemons(device).wait_reading()
    (registered,) = device.status()["daemons"]
    assert registered["euid"] == 0
    assert registered["flags"] == ["IN_READ", "MISCDEV_OPEN"]
    assert log_at_end(device)[:2] == ["0: daemon registered", "0: HELO"]


def test_a_second_one_of_the_same_user_is_refused(
    device: MountedDevice, daemons: DaemonFactory, clients: ClientFactory
) -> None:
    daemons(device).wait_reading()
    second = daemons(device)
    assert "Invalid argument" in second.said()
    assert second.wait() == DEVICE_REFUSED
    request = Tag64(UNKNOWN_SIGNATURE, bytes(256))
    assert ask(clients(), device.request_path, request) == b"\x41\xff"


def test_one_of_another_user_is_let_in_and_answers_that_user(
    device: MountedDevice, daemons: DaemonFactory, clients: ClientFactory
) -> None:
    daemons(device).wait_reading()
    daemons(device, OTHER_UID).wait_reading()
    assert [daemon["euid"] for daemon in device.status()["daemons"]] == [0, OTHER_UID]
    request = Tag64(UNKNOWN_SIGNATURE, bytes(256))
    for uid in (OTHER_UID, 0):
        assert ask(clients(uid), device.request_path, request) == b"\x41\xff"


@pytest.mark.parametrize("path", ["/dev/ecryptfs", "/dev/misc/ecryptfs"])
def test_it_finds_the_device_that_bind_puts_at_either_of_its_paths(
    mount_inside: InsideFactory,
    namespace: PrivateNamespace,
    daemons: DaemonFactory,
    clients: ClientFactory,
    path: str,
) -> None:
    on_the_host = Path(path).exists()
    device = mount_inside(path)
    daemons(device).wait_reading()
    request = Tag64(UNKNOWN_SIGNATURE, bytes(256))
    assert ask(clients(), device.request_path, request) == b"\x41\xff"
    device.stop()
    assert not namespace.has_mounted(path)
    assert not namespace.outside(path).exists()
    assert Path(path).exists() == on_the_host
