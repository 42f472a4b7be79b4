"""An ordinary user mounts the device through fusermount3, for their own daemons."""

import errno
import os
import pwd
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ClientFactory, let_everyone_in
from tests.device.traffic import PACKET_MAX, exchange, open_device, refused
from tests.mounted import MountedDevice, is_mountpoint, run_command

# fusermount3 wants a user who has a name.
_NOBODY = pwd.getpwnam("nobody")
UID = _NOBODY.pw_uid
AS_USER = ("setpriv", f"--reuid={UID}", f"--regid={_NOBODY.pw_gid}", "--clear-groups")


def _users_may_let_others_in() -> bool:
    configuration = Path("/etc/fuse.conf")
    return configuration.exists() and "user_allow_other" in configuration.read_text().split("\n")


Start = Callable[..., MountedDevice]


@pytest.fixture
def mountpoint(tmp_path: Path) -> Path:
    """A directory of the user's."""
    let_everyone_in(tmp_path)
    where = tmp_path / "mount"
    where.mkdir()
    os.chown(where, UID, _NOBODY.pw_gid)
    return where


@pytest.fixture
def start(mountpoint: Path, transport: str) -> Iterator[Start]:
    """Start a server of the user's."""
    started: list[MountedDevice] = []

    def factory(*arguments: str) -> MountedDevice:
        started.append(
            MountedDevice(mountpoint, "--transport", transport, *arguments, prefix=AS_USER)
        )
        return started[-1]

    try:
        yield factory
    finally:
        for device in started:
            device.clean_up()


def test_the_user_has_a_device_for_their_own_daemon(start: Start, clients: ClientFactory) -> None:
    device = start()
    daemon, requester = clients(UID), clients(UID)
    descriptor = open_device(daemon, device)
    with refused(errno.EINVAL):
        open_device(requester, device)
    for _ in range(10):
        assert exchange(device, requester, daemon, descriptor, b"abc") == b"cba"
    read = daemon.start("raw_read", descriptor, PACKET_MAX)
    read.wait_blocked()
    device.stop()
    assert read.result() == b""


def test_nobody_else_gets_in_not_even_root(start: Start, clients: ClientFactory) -> None:
    device = start()
    for uid in (0, 1000):
        with refused(errno.EACCES):
            open_device(clients(uid), device)
    device.stop()


def test_the_user_unmounts_it(start: Start) -> None:
    for command in ("umount", "fusermount3 -u"):
        device = start()
        where = str(device.mountpoint)
        if command == "umount":
            assert run_command("umount", where, prefix=AS_USER).returncode == 0
        else:
            subprocess.run([*AS_USER, *command.split(), where], check=True)
        device.check_end()


def test_a_stale_mount_of_the_users_is_cleared(start: Start, clients: ClientFactory) -> None:
    killed = start()
    killed.process.kill()
    killed.process.communicate()
    device = start()
    open_device(clients(UID), device)
    device.process.terminate()
    device.check_end(
        f"ecryptfs-cuse: cleared the stale mount at {device.mountpoint}: its server had died\n"
    )


def test_a_mount_point_of_somebody_else_is_refused(tmp_path: Path, transport: str) -> None:
    let_everyone_in(tmp_path)
    where = tmp_path / "roots"
    where.mkdir()
    done = run_command("mount", str(where), "--transport", transport, prefix=AS_USER)
    assert (done.returncode, done.stdout) == (32, "")
    assert done.stderr.startswith("Error: fusermount3 failed: ")
    assert not is_mountpoint(where)


def test_a_bound_path_needs_root_and_without_it_nothing_stays_mounted(
    mountpoint: Path, transport: str
) -> None:
    target = str(mountpoint.parent / "ecryptfs")
    done = run_command(
        "mount", str(mountpoint), "--bind", target, "--transport", transport, prefix=AS_USER
    )
    assert (done.returncode, done.stdout) == (32, "")
    assert done.stderr.startswith("Error: ")
    assert not is_mountpoint(mountpoint)


@pytest.mark.skipif(_users_may_let_others_in(), reason="/etc/fuse.conf lets users allow others in")
def test_letting_others_in_needs_the_administrators_consent(
    mountpoint: Path, transport: str
) -> None:
    done = run_command(
        "mount", str(mountpoint), "--allow-other", "--transport", transport, prefix=AS_USER
    )
    assert (done.returncode, done.stdout) == (32, "")
    assert "user_allow_other" in done.stderr
    assert not is_mountpoint(mountpoint)
