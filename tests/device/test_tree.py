import errno
import os
import stat

import pytest

from tests.conftest import ClientFactory, MountFactory
from tests.device.traffic import ask, open_device, read_packet, refused, respond
from tests.mounted import MountedDevice

PARAMETERS = "sys/module/ecryptfs/parameters"


def test_the_tree_is_this(device: MountedDevice, clients: ClientFactory) -> None:
    client = clients()
    found = {
        directory: sorted(client.call("os.listdir", str(device.mountpoint / directory)))
        for directory in ("", "dev", "sys/fs/ecryptfs", PARAMETERS, "control")
    }
    assert found == {
        "": ["control", "dev", "sys", "users"],
        "dev": ["ecryptfs"],
        "sys/fs/ecryptfs": ["version"],
        PARAMETERS: [
            "ecryptfs_message_buf_len",
            "ecryptfs_message_wait_timeout",
            "ecryptfs_number_of_users",
        ],
        "control": ["request", "status"],
    }


def test_the_files_modes_are_the_kernels_and_directories_are_passed_through(
    mount: MountFactory, clients: ClientFactory
) -> None:
    device, client = mount("--mode", "0600"), clients()
    modes = {
        "": stat.S_IFDIR | 0o711,
        "sys": stat.S_IFDIR | 0o711,
        "dev": stat.S_IFDIR | 0o700,
        "dev/ecryptfs": stat.S_IFREG | 0o600,
        "sys/fs/ecryptfs/version": stat.S_IFREG | 0o444,
        f"{PARAMETERS}/ecryptfs_message_buf_len": stat.S_IFREG | 0o444,
        "control/request": stat.S_IFREG | 0o666,
        "control/status": stat.S_IFREG | 0o444,
    }
    for path, mode in modes.items():
        assert client.call("stat_afresh", str(device.mountpoint / path)) == (mode, 0, 0)


def test_version_and_parameters_can_be_read_by_everybody(
    device: MountedDevice, clients: ClientFactory
) -> None:
    client = clients(1000)
    texts = {
        "sys/fs/ecryptfs/version": b"375\n",
        f"{PARAMETERS}/ecryptfs_message_buf_len": b"32\n",
        f"{PARAMETERS}/ecryptfs_message_wait_timeout": b"3\n",
        f"{PARAMETERS}/ecryptfs_number_of_users": b"4\n",
    }
    for path, text in texts.items():
        descriptor = client.call("os.open", str(device.mountpoint / path), os.O_RDONLY)
        assert client.call("os.read", descriptor, 100) == text
        assert client.call("os.read", descriptor, 100) == b""
        assert client.call("os.pread", descriptor, 2, 1) == text[1:3]


def test_the_parameters_are_those_of_the_command_line(
    mount: MountFactory, clients: ClientFactory
) -> None:
    device = mount(
        "--message-buf-len", "7", "--message-wait-timeout", "1.5", "--number-of-users", "100000"
    )
    client, texts = clients(), []
    for name in ("message_buf_len", "message_wait_timeout", "number_of_users"):
        path = device.mountpoint / PARAMETERS / f"ecryptfs_{name}"
        descriptor = client.call("os.open", str(path), os.O_RDONLY)
        texts.append(client.call("os.read", descriptor, 100))
    assert texts == [b"7\n", b"1.5\n", b"32768\n"]


def test_parameters_keep_all_their_digits(mount: MountFactory, clients: ClientFactory) -> None:
    device, client = mount("--message-wait-timeout", "1234567"), clients()
    path = device.mountpoint / PARAMETERS / "ecryptfs_message_wait_timeout"
    descriptor = client.call("os.open", str(path), os.O_RDONLY)
    assert client.call("os.read", descriptor, 100) == b"1234567\n"


@pytest.mark.parametrize("path", ["sys/fs/ecryptfs/version", "control/status"])
def test_what_can_only_be_read_is_refused_to_writers_even_to_root(
    device: MountedDevice, clients: ClientFactory, path: str
) -> None:
    client = clients()
    for flags in (os.O_WRONLY, os.O_RDWR):
        with refused(errno.EACCES):
            client.call("os.open", str(device.mountpoint / path), flags)


def test_nothing_can_be_created_removed_or_renamed(
    device: MountedDevice, clients: ClientFactory
) -> None:
    client = clients()
    new, old = str(device.mountpoint / "dev" / "new"), device.path
    for call in (
        ("os.mkdir", new),
        ("os.open", new, os.O_RDWR | os.O_CREAT),
        ("os.symlink", old, new),
        ("os.link", old, new),
        ("os.rename", old, new),
        ("os.unlink", old),
        ("os.unlink", str(device.mountpoint / "dev")),
        ("os.rmdir", str(device.mountpoint / "sys")),
        ("os.mkdir", str(device.mountpoint / "users" / "new")),
    ):
        with refused(errno.EPERM):
            client.call(*call)
    assert client.call("os.listdir", str(device.mountpoint / "dev")) == ["ecryptfs"]


def test_what_is_not_there_is_not_found(device: MountedDevice, clients: ClientFactory) -> None:
    client = clients()
    for path, number in (
        ("dev/null", errno.ENOENT),
        ("dev/ecryptfs/x", errno.ENOTDIR),
        ("control/trace/x", errno.ENOENT),
    ):
        with refused(number):
            client.call("os.stat", str(device.mountpoint / path))


def test_chmod_and_chown_last(mount: MountFactory, clients: ClientFactory) -> None:
    device = mount()
    root, user = clients(), clients(1000)
    root.call("os.chmod", device.path, 0o640)
    root.call("os.chown", device.path, 1000, 1001)
    assert user.call("stat_afresh", device.path) == (stat.S_IFREG | 0o640, 1000, 1001)
    descriptor = open_device(user, device)
    user.call("os.fchmod", descriptor, 0o600)
    assert root.call("stat_afresh", device.path) == (stat.S_IFREG | 0o600, 1000, 1001)
    with refused(errno.EACCES):
        open_device(clients(1001), device)
    with refused(errno.EPERM):
        clients(1001).call("os.chmod", device.path, 0o666)


def test_the_device_cannot_be_truncated_but_by_opening_it(
    device: MountedDevice, clients: ClientFactory
) -> None:
    client = clients()
    descriptor = open_device(client, device, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    for size in (0, 100):
        with refused(errno.EINVAL):
            client.call("os.ftruncate", descriptor, size)
        with refused(errno.EINVAL):
            client.call("os.truncate", device.path, size)


def test_a_shell_can_redirect_to_the_files_that_are_written(
    device: MountedDevice, clients: ClientFactory
) -> None:
    client = clients()
    script = f"printf 'd\\0\\0\\0\\0' > {device.path}"
    assert client.call("os.system", script) == 0
    descriptor = open_device(client, device)
    script = f"exec 3<>{device.request_path}; printf ask >&3; read answer <&3; test $answer = 42"
    shell = client.start("os.system", script)
    respond(client, descriptor, read_packet(client, descriptor), b"42\n")
    assert shell.result() == 0


def test_status_tells_daemons_contexts_and_totals(
    mount: MountFactory, clients: ClientFactory
) -> None:
    device = mount()
    daemon, requester = clients(1000), clients(1000)
    descriptor = open_device(daemon, device)
    ask(requester, device, b"one")
    ask(requester, device, b"two")
    respond(daemon, descriptor, read_packet(daemon, descriptor), b"")
    status = device.status()
    namespace = os.stat("/proc/self/ns/user").st_ino
    assert status["daemons"] == [
        {"euid": 1000, "user_namespace": namespace, "flags": ["MISCDEV_OPEN"], "queued": 1}
    ]
    assert status["contexts"] == {
        "total": 32,
        "per_user": None,
        "free": 31,
        "in_use": [{"index": 1, "counter": 2, "euid": 1000}],
    }
    assert status["counter"] == 2
    assert status["totals"] == {
        "requests": 2,
        "requests_without_daemon": 0,
        "requests_without_context": 0,
        "responses": 1,
        "responses_refused": 0,
        "timeouts": 0,
        "messages_dropped": 0,
    }


def test_the_device_answers_these_calls_as_the_kernels_does(
    device: MountedDevice, clients: ClientFactory
) -> None:
    client = clients()
    descriptor = open_device(client, device)
    for number, call in (
        (errno.EINVAL, ("os.fsync", descriptor)),
        (errno.EINVAL, ("os.fdatasync", descriptor)),
        (errno.ENODEV, ("map_memory", descriptor)),
        (errno.ENOTTY, ("fcntl.ioctl", descriptor, 0x5401)),
        (errno.ENOTTY, ("fcntl.ioctl", descriptor, 0)),
    ):
        with refused(number):
            client.call(*call)
    client.call("fcntl.flock", descriptor, 2)
    client.call("fcntl.lockf", descriptor, 2)


def test_a_change_of_attributes_is_a_change_of_now(
    mount: MountFactory, clients: ClientFactory
) -> None:
    device, user = mount(), clients(1000)
    before = user.call("os.stat", device.path).st_ctime_ns
    user.call("os.utime", device.path)
    assert user.call("os.stat", device.path).st_ctime_ns > before
