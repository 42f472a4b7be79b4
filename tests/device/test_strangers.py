"""Users who share a device are strangers: what one does to a file holds up nobody else."""

import errno
import os
import signal
import stat
from pathlib import Path

import pytest

from tests.client import Client
from tests.device.traffic import (
    HELO,
    PACKET_MAX,
    ask,
    exchange,
    open_device,
    read_packet,
    refused,
    respond,
)
from tests.mounted import MountedDevice

STRANGERS = Path(__file__).with_name("strangers.py")
VICTIM = 1001

FILLS_PAGE_CACHE = ["advise", "read_ahead", "touch_mapping", "splice_out", "send_out"]


def stranger(uid: int = 1000, prefix: tuple[str, ...] = ()) -> Client:
    return Client(uid, prefix, functions=STRANGERS)


def check_service(device: MountedDevice, uid: int = VICTIM) -> None:
    """A user opens every kind of file, and has a request answered: nothing of it hangs."""
    with Client(uid) as daemon, Client(uid) as requester:
        descriptor = open_device(daemon, device)
        assert daemon.call("os.write", descriptor, HELO) == len(HELO)
        daemon.call("os.fstat", descriptor)
        daemon.call("os.stat", device.path)
        assert exchange(device, requester, daemon, descriptor, b"abc") == b"cba"
        status = daemon.call("os.open", device.status_path, os.O_RDONLY)
        assert daemon.call("os.read", status, 10)


def check_nothing_comes(client: Client, call: str, descriptor: int) -> None:
    """One of FILLS_PAGE_CACHE returns, or fails, and shows nothing of what is in the file."""
    try:
        came = client.call(call, descriptor)
    except OSError as error:
        came = error.errno
    assert came in (None, 0, b"", -signal.SIGBUS, errno.EINVAL, errno.EIO)


@pytest.mark.channel_only("pyfuse3 does not say what a read is for")
@pytest.mark.parametrize("call", FILLS_PAGE_CACHE)
@pytest.mark.parametrize("path", ["path", "request_path"])
def test_a_read_into_the_page_cache_waits_for_nothing_and_holds_up_nobody(
    device: MountedDevice, call: str, path: str
) -> None:
    with stranger() as attacker:
        descriptor = attacker.call("os.open", getattr(device, path), os.O_RDWR)
        if path == "path":
            attacker.call("os.write", descriptor, HELO)  # now the file has a size
        check_nothing_comes(attacker, call, descriptor)
        check_service(device)
        check_service(device, 1002)


@pytest.mark.channel_only("pyfuse3 does not say what a read is for")
@pytest.mark.parametrize("call", FILLS_PAGE_CACHE)
def test_a_read_into_the_page_cache_takes_no_message(device: MountedDevice, call: str) -> None:
    with stranger() as daemon, stranger() as requester:
        descriptor = open_device(daemon, device)
        daemon.call("os.write", descriptor, HELO)
        request = ask(requester, device, b"for a read alone")
        check_nothing_comes(daemon, call, descriptor)
        packet = read_packet(daemon, descriptor)
        assert b"for a read alone" in packet
        respond(daemon, descriptor, packet, b"answer")
        check_nothing_comes(requester, call, request)
        assert requester.call("os.read", request, PACKET_MAX) == b"answer"


@pytest.mark.channel_only("pyfuse3 does not say what a read is for")
def test_asynchronous_reads_with_o_direct_are_over_at_once(device: MountedDevice) -> None:
    with stranger() as attacker:
        descriptor = open_device(attacker, device)
        attacker.call("os.write", descriptor, HELO)
        attacker.call("set_direct", descriptor)
        assert attacker.call("submit_reads", descriptor, 100) == 100
        attacker.kill()
        attacker.wait()
    device.wait_status("daemons", equals=[])
    check_service(device)


@pytest.mark.channel_only("it knows no interrupts")
def test_an_asynchronous_read_ends_with_its_process(device: MountedDevice) -> None:
    with stranger() as attacker:
        descriptor = open_device(attacker, device)
        attacker.call("os.write", descriptor, HELO)  # now the file has a size: it is read
        submitting = attacker.start("submit_reads", descriptor, 1)
        submitting.wait_blocked()
        check_service(device)
        attacker.kill()
        attacker.wait()
    device.wait_status("daemons", equals=[])


@pytest.mark.parametrize("path", ["path", "request_path"])
def test_a_write_from_memory_that_never_comes_holds_up_its_own_user_alone(
    device: MountedDevice, path: str
) -> None:
    with stranger(0) as attacker:
        descriptor = attacker.call("os.open", getattr(device, path), os.O_RDWR)
        attacker.start("write_from_nowhere", descriptor).wait_blocked()
        check_service(device)
        attacker.kill()
        attacker.wait()


def test_nobody_but_its_owner_lists_a_directory(device: MountedDevice) -> None:
    # Who lists one into memory that never comes holds it locked; all others wait for the next who
    # would change it.
    with Client(0) as owner, Client(1000) as other:
        for directory in ("", "users", "sys/fs/ecryptfs"):
            path = str(device.mountpoint / directory)
            assert stat.S_IMODE(owner.call("os.stat", path).st_mode) == 0o711
            owner.call("os.listdir", path)
            with refused(errno.EACCES):
                other.call("os.listdir", path)
        for directory in ("dev", "control"):
            path = str(device.mountpoint / directory)
            assert owner.call("os.listdir", path) == other.call("os.listdir", path)


def test_a_list_into_memory_that_never_comes_holds_up_its_own_user_alone(
    device: MountedDevice,
) -> None:
    with stranger(0) as attacker, Client(0) as changer:
        listing = attacker.start("list_into_nowhere", str(device.mountpoint / "dev"))
        listing.wait_blocked()
        changing = changer.start("os.mkdir", str(device.mountpoint / "dev" / "new"))
        changing.wait_blocked()
        check_service(device)
        attacker.kill()
        attacker.wait()
        with refused(errno.EPERM):
            changing.result()


def test_each_user_has_inodes_of_their_own_that_nobody_else_reaches(device: MountedDevice) -> None:
    paths = [device.path, device.request_path, device.status_path]
    with Client(0) as root, Client(1000) as user, Client(1000) as again:
        numbers: list[list[int]] = [
            [client.call("os.stat", path).st_ino for path in paths]
            for client in (root, user, root, again)
        ]
        for uid in (0, 1001):
            with refused(errno.EACCES):
                user.call("os.stat", f"{device.mountpoint}/users/{uid}/dev/ecryptfs")
        with refused(errno.EPERM):
            user.call("os.chmod", f"{device.mountpoint}/users/1000", 0o777)
    assert len({*numbers[0], *numbers[1]}) == 2 * len(paths)
    assert numbers[2:] == numbers[:2]


@pytest.mark.parametrize(
    "name", ["-1", "00", "01000", "4294967295", "99999999999", "1000x", "\u0661"]
)
def test_a_user_has_one_directory_and_nobody_has_none(device: MountedDevice, name: str) -> None:
    with Client(0) as root, refused(errno.ENOENT):
        root.call("os.stat", f"{device.mountpoint}/users/{name}")


def test_an_inode_that_another_user_looked_up_can_be_opened_by_who_is_handed_it(
    device: MountedDevice,
) -> None:
    with Client(0) as root:
        held = root.call("os.open", device.path, os.O_PATH)
        root.call("set_effective_uid", 1000)
        descriptor = root.call("os.open", f"/proc/self/fd/{held}", os.O_RDWR)
        assert device.status()["daemons"][0]["euid"] == 1000
        root.call("os.close", descriptor)


def test_a_file_handle_that_somebody_made_up_is_refused(device: MountedDevice) -> None:
    in_a_namespace = ("unshare", "-Urm", "--propagation", "unchanged")
    with stranger(1000, in_a_namespace) as attacker, Client(0) as root:
        known = root.call("os.stat", device.path).st_ino
        held = open_device(root, device)
        for inode in (1, 0x1234, known, known + 1000 * 12, 2**62, 2**64 - 1):
            # Linux lets ordinary users try directories alone, and before 6.11 nothing at all.
            for flags in (os.O_RDONLY, os.O_RDONLY | os.O_DIRECTORY):
                with refused(errno.ESTALE, errno.EOPNOTSUPP, errno.EPERM):
                    attacker.call("open_by_handle", device.status_path, inode, flags)
        root.call("os.close", held)
    check_service(device)
