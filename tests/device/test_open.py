import errno
import os
from collections.abc import Callable

import pytest

from tests.conftest import ClientFactory
from tests.device.traffic import open_device, refused
from tests.mounted import MountedDevice

USER = 1000
OTHER = 1001


def test_a_second_open_by_the_same_process_is_refused(
    device: MountedDevice, clients: ClientFactory
) -> None:
    client = clients()
    open_device(client, device)
    for flags in (os.O_RDWR, os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_NONBLOCK):
        with refused(errno.EINVAL):
            open_device(client, device, flags)


def test_a_second_open_by_another_process_of_the_user_is_refused(
    device: MountedDevice, clients: ClientFactory
) -> None:
    first, second = clients(USER), clients(USER)
    descriptor = open_device(first, device)
    with refused(errno.EINVAL):
        open_device(second, device)
    first.call("os.close", descriptor)
    open_device(second, device)


def test_each_user_has_a_daemon_of_their_own(device: MountedDevice, clients: ClientFactory) -> None:
    for uid in (0, USER, OTHER):
        open_device(clients(uid), device)
    assert [daemon["euid"] for daemon in device.status()["daemons"]] == [0, USER, OTHER]


def test_the_effective_uid_counts_and_not_the_real_one(
    device: MountedDevice, clients: ClientFactory
) -> None:
    changed, user, root = clients(), clients(USER), clients()
    changed.call("set_effective_uid", USER)
    open_device(changed, device)
    with refused(errno.EINVAL):
        open_device(user, device)
    open_device(root, device)


def test_the_effective_uid_counts_and_not_the_one_for_file_systems(
    device: MountedDevice, clients: ClientFactory
) -> None:
    changed, user, root = clients(), clients(USER), clients()
    changed.call("set_filesystem_uid", USER)
    open_device(changed, device)
    with refused(errno.EINVAL):
        open_device(root, device)
    open_device(user, device)


def test_the_opener_stays_the_owner_whatever_becomes_of_its_uid(
    device: MountedDevice, clients: ClientFactory
) -> None:
    changed, user, root = clients(), clients(USER), clients()
    open_device(changed, device)
    changed.call("set_effective_uid", USER)
    open_device(user, device)
    with refused(errno.EINVAL):
        open_device(root, device)


def test_the_same_uid_in_another_user_namespace_is_somebody_else(
    device: MountedDevice, clients: ClientFactory
) -> None:
    outside, inside, other = clients(USER), clients(USER, "unshare", "-U"), clients(OTHER)
    open_device(outside, device)
    open_device(inside, device)
    with refused(errno.EINVAL):
        open_device(inside, device)
    open_device(other, device)
    daemons = device.status()["daemons"]
    assert [daemon["euid"] for daemon in daemons] == [USER, USER, OTHER]
    namespaces = [daemon["user_namespace"] for daemon in daemons]
    assert namespaces[0] == namespaces[2] != namespaces[1]


@pytest.mark.parametrize("access", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_ACCMODE])
def test_every_access_mode_registers_a_daemon(
    device: MountedDevice, clients: ClientFactory, access: int
) -> None:
    first, second = clients(), clients()
    open_device(first, device, access)
    with refused(errno.EINVAL):
        open_device(second, device)


@pytest.mark.parametrize(
    "flag",
    ["O_NONBLOCK", "O_TRUNC", "O_APPEND", "O_CREAT", "O_SYNC", "O_NOFOLLOW", "O_NOCTTY"],
)
def test_a_flag_that_means_nothing_here_changes_nothing(
    device: MountedDevice, clients: ClientFactory, flag: str
) -> None:
    client = clients()
    open_device(client, device, os.O_RDWR | getattr(os, flag))
    with refused(errno.EINVAL):
        open_device(client, device)


@pytest.mark.parametrize(
    ("flags", "number"),
    [
        (os.O_RDWR | os.O_DIRECT, errno.EINVAL),
        (os.O_RDWR | os.O_CREAT | os.O_EXCL, errno.EEXIST),
        (os.O_RDONLY | os.O_DIRECTORY, errno.ENOTDIR),
    ],
)
def test_an_open_that_is_refused_leaves_no_daemon(
    device: MountedDevice, clients: ClientFactory, flags: int, number: int
) -> None:
    client = clients()
    with refused(number):
        open_device(client, device, flags)
    assert device.status()["daemons"] == []
    open_device(client, device)


def test_a_path_descriptor_registers_nothing(device: MountedDevice, clients: ClientFactory) -> None:
    client = clients()
    open_device(client, device, os.O_PATH)
    assert device.status()["daemons"] == []
    open_device(client, device)


def test_a_duplicate_keeps_the_daemon_registered(
    device: MountedDevice, clients: ClientFactory
) -> None:
    first, second = clients(), clients()
    descriptor = open_device(first, device)
    duplicate = first.call("os.dup", descriptor)
    first.call("os.close", descriptor)
    with refused(errno.EINVAL):
        open_device(second, device)
    first.call("os.close", duplicate)
    open_device(second, device)


def test_a_child_that_inherits_the_descriptor_keeps_the_daemon_registered(
    device: MountedDevice, clients: ClientFactory
) -> None:
    first, second = clients(), clients()
    descriptor = open_device(first, device)
    child = first.call("fork_and_hold")
    first.call("os.close", descriptor)
    with refused(errno.EINVAL):
        open_device(second, device)
    first.call("reap", child)
    open_device(second, device)


def test_a_daemon_that_was_killed_can_be_started_again_at_once(
    device: MountedDevice, clients: ClientFactory
) -> None:
    for _ in range(5):
        client = clients()
        open_device(client, device)
        client.kill()
        client.wait()
    open_device(clients(), device)


def test_close_frees_the_device_at_once_a_thousand_times(
    device: MountedDevice, clients: ClientFactory
) -> None:
    assert clients().call("reopen", device.path, 1000) == 0


def test_the_descriptor_cannot_be_opened_again_through_proc(
    device: MountedDevice, clients: ClientFactory
) -> None:
    client = clients()
    descriptor = open_device(client, device)
    with refused(errno.EINVAL):
        client.call("os.open", f"/proc/self/fd/{descriptor}", os.O_RDWR)


def test_the_mode_guards_the_device(
    mount: Callable[..., MountedDevice], clients: ClientFactory
) -> None:
    device = mount("--mode", "0600")
    user = clients(USER)
    with refused(errno.EACCES):
        open_device(user, device)
    os.chown(device.path, USER, -1)
    open_device(user, device)
    open_device(clients(), device)
