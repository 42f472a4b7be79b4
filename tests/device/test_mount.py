import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ClientFactory, MountFactory
from tests.device.traffic import HELO, exchange, open_device, refused
from tests.mounted import COMMAND, MountedDevice, is_mountpoint, run_command

USER = 1000


def mount_options(mountpoint: Path) -> set[str]:
    """The options that the kernel's list of mounts has."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        if fields[4] == str(mountpoint):
            return {*fields[5].split(","), *fields[-1].split(",")}
    return set()


def test_one_line_says_that_the_device_can_be_opened(
    mount: MountFactory, clients: ClientFactory
) -> None:
    device = mount()
    assert device.ready_line == f"ready: {device.mountpoint}/dev/ecryptfs\n"
    open_device(clients(), device)
    # check_end sees to it that there was nothing else, on either stream.
    device.stop()


def test_the_line_names_the_mount_point_as_it_was_given(
    mount: MountFactory, tmp_path: Path, transport: str
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    process = subprocess.Popen(
        [sys.executable, "-P", *COMMAND[1:], "mount", "link/../real", "--transport", transport],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready: link/../real/dev/ecryptfs\n"
        assert is_mountpoint(tmp_path / "real")
        process.terminate()
    assert process.returncode == 0


def test_without_allow_other_other_users_are_refused_even_root(
    tmp_path: Path, transport: str, clients: ClientFactory
) -> None:
    device = MountedDevice(tmp_path / "mount", "--mode", "0666", "--transport", transport)
    try:
        open_device(clients(), device)
        with refused(errno.EACCES):
            open_device(clients(USER), device)
        device.stop()
    finally:
        device.clean_up()


def test_mode_owner_and_group_of_the_device_can_be_chosen(
    mount: MountFactory, clients: ClientFactory
) -> None:
    device = mount("--mode", "0640", "--uid", str(USER), "--gid", "1001")
    found = clients().call("os.stat", device.path)
    assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o640, USER, 1001)
    open_device(clients(USER), device)
    with refused(errno.EACCES):
        open_device(clients(1001), device)  # the group may only read
    open_device(clients(1001), device, os.O_RDONLY)
    with refused(errno.EACCES):
        open_device(clients(1002), device, os.O_RDONLY)


def test_options_of_mount_are_passed_on(mount: MountFactory) -> None:
    options = mount_options(mount("-o", "noexec,max_read=65536").mountpoint)
    assert {"noexec", "max_read=65536", "allow_other", "default_permissions"} <= options


def test_the_device_appears_at_another_path_too(
    mount: MountFactory, clients: ClientFactory, tmp_path: Path
) -> None:
    target = tmp_path / "ecryptfs"
    device = mount("--bind", str(target))
    client = clients(USER)
    descriptor = client.call("os.open", str(target), os.O_RDWR)
    with refused(errno.EINVAL):
        open_device(client, device)
    assert client.call("os.write", descriptor, HELO) == len(HELO)
    assert exchange(device, client, client, descriptor, b"abc") == b"cba"
    device.stop()  # with the device open
    assert not is_mountpoint(target)
    assert not target.exists()


def test_a_file_that_was_there_before_stays_where_it_is(
    mount: MountFactory, tmp_path: Path
) -> None:
    target = tmp_path / "ecryptfs"
    target.write_text("mine")
    device = mount("--bind", str(target))
    assert is_mountpoint(target)
    device.stop()
    assert not is_mountpoint(target)
    assert target.read_text() == "mine"


def test_an_unmount_takes_the_other_path_away_too(mount: MountFactory, tmp_path: Path) -> None:
    target = tmp_path / "ecryptfs"
    device = mount("--bind", str(target))
    assert run_command("umount", str(device.mountpoint)).returncode == 0
    device.check_end()
    assert not target.exists()


def test_another_path_that_somebody_has_unmounted_is_taken_away_all_the_same(
    mount: MountFactory, tmp_path: Path
) -> None:
    target = tmp_path / "ecryptfs"
    device = mount("--bind", str(target))
    subprocess.run(["umount", str(target)], check=True)
    device.stop()
    assert not target.exists()


def test_a_bind_that_fails_leaves_nothing_mounted(tmp_path: Path, transport: str) -> None:
    where, target = tmp_path / "mount", tmp_path / "no such directory" / "ecryptfs"
    where.mkdir()
    done = run_command("mount", str(where), "--bind", str(target), "--transport", transport)
    assert (done.returncode, done.stdout) == (32, "")
    assert done.stderr == f"Error: cannot create {target}: No such file or directory\n"
    assert not is_mountpoint(where)


def test_in_the_background_it_goes_on_until_it_is_unmounted(
    tmp_path: Path, transport: str, clients: ClientFactory
) -> None:
    where = tmp_path / "mount"
    where.mkdir()
    alive, held_by_server = os.pipe()
    try:
        done = subprocess.run(
            [*COMMAND, "mount", str(where), "--background", "--transport", transport],
            capture_output=True,
            text=True,
            pass_fds=[held_by_server],
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"ready: {where}/dev/ecryptfs\n"
        client = clients()
        client.call("os.open", str(where / "dev" / "ecryptfs"), os.O_RDWR)
        assert run_command("umount", str(where)).returncode == 0
    finally:
        os.close(held_by_server)
        # The end of the pipe: nobody has the other end, so the server is gone.
        assert os.read(alive, 1) == b""
        os.close(alive)
    assert not is_mountpoint(where)


def test_in_the_background_it_fails_as_in_the_foreground(tmp_path: Path, transport: str) -> None:
    where = tmp_path / "missing"
    for background in ([], ["--background"]):
        done = run_command("mount", str(where), "--transport", transport, *background)
        assert (done.returncode, done.stdout) == (32, "")
        assert done.stderr == f"Error: {where} is not a directory: create it first\n"


def test_mounting_twice_at_one_place_is_refused(device: MountedDevice, transport: str) -> None:
    where = str(device.mountpoint)
    done = run_command("mount", where, "--transport", transport)
    assert (done.returncode, done.stdout) == (32, "")
    assert done.stderr == f"Error: {where} serves a device already: unmount it first\n"
    assert device.status()["daemons"] == []


@pytest.mark.parametrize("option", ["nonsense", "uid=what"])
def test_an_option_that_cannot_be_mounted_with_is_an_error(tmp_path: Path, option: str) -> None:
    where = tmp_path / "mount"
    where.mkdir()
    done = run_command("mount", str(where), "-o", option)
    assert (done.returncode, done.stdout) == (32, "")
    assert done.stderr.startswith("Error: fusermount3 failed: ")
    assert not is_mountpoint(where)


@pytest.mark.parametrize(
    "option",
    [
        *("auto_unmount", "noexec,auto_unmount", "allow_root", "blkdev", "ro", "rw,ro"),
        *("subtype=other", "fd=0", "rootmode=40000", "user_id=1", "group_id=1"),
    ],
)
def test_an_option_that_is_not_for_here_is_refused_with_the_reason(
    tmp_path: Path, option: str
) -> None:
    done = run_command("mount", str(tmp_path), "-o", option)
    assert (done.returncode, done.stdout) == (32, "")
    name = option.split(",")[-1].split("=")[0]
    assert done.stderr.startswith(f"Error: the option {name} cannot be used: ")
    assert not is_mountpoint(tmp_path)


@pytest.mark.parametrize(
    "option",
    [
        "max_read=-1",
        "fsname=",
        "allow_other\\",
        "a\\,b",
        "remount",
        "bind",
        "context=x",
        "\\",
        "=",
        "-o",
    ],
)
def test_an_option_that_makes_no_sense_is_an_error_in_a_sentence(
    tmp_path: Path, option: str
) -> None:
    done = run_command("mount", str(tmp_path), "-o", option)
    assert (done.returncode, done.stdout) == (32, "")
    assert done.stderr.startswith("Error: fusermount3 failed: ")
    assert not is_mountpoint(tmp_path)


def test_a_device_with_unusual_options_works(mount: MountFactory, clients: ClientFactory) -> None:
    device = mount("-o", r",,max_read=1,nonempty,,fsname=a\,b c,default_permissions,dev,suid,sync,")
    client = clients()
    descriptor = open_device(client, device)
    data = b"x" * 500
    assert exchange(device, client, client, descriptor, data) == data[::-1]
    assert run_command("umount", str(device.mountpoint)).returncode == 0
    device.check_end()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mount failed: No space left on device", "see the sysctl fs.mount-max"),
        ("mount failed: Operation not permitted", "SYS_ADMIN"),
        ("fuse: device not found, try 'modprobe fuse' first", "modprobe fuse"),
        ("gr\udcfcn", "gr"),
        (None, "fusermount3 is missing: install it"),
    ],
)
def test_a_fusermount_that_fails_is_said_with_what_to_do(
    tmp_path: Path, text: str | None, sentence: str
) -> None:
    where, program = tmp_path / "mount", tmp_path / "bin" / "fusermount3"
    where.mkdir()
    program.parent.mkdir()
    if text is not None:
        program.write_bytes(b'#!/bin/sh\necho "fusermount3: %s" >&2; exit 1' % os.fsencode(text))
        program.chmod(0o755)
    done = subprocess.run(
        [*COMMAND, "mount", str(where)],
        env={**os.environ, "PATH": str(program.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (32, "")
    assert done.stderr.startswith("Error: fusermount3 ")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--uid", "4294967295"),
        ("--uid", "99999999999"),
        ("--uid", "-1"),
        ("--gid", "4294967295"),
        ("--gid", "99999999999"),
        ("--message-wait-timeout", "inf"),
        ("--message-wait-timeout", "1e308"),
        ("--message-wait-timeout", "-inf"),
        ("--number-of-users", "4294967296"),
        ("--message-buf-len", "99999999999999999999"),
        ("--mode", "0999"),
        ("--mode", "7777"),
        ("--message-buf-len", "-1"),
        ("--message-buf-len", "65537"),
        ("--message-wait-timeout", "soon"),
        ("--message-wait-timeout", "nan"),
        ("--number-of-users", "0"),
        ("--transport", "pigeon"),
        ("--no-such-option",),
    ],
)
def test_a_wrong_command_line_is_2_and_mounts_nothing(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    where = tmp_path / "mount"
    where.mkdir()
    done = run_command("mount", *([str(where)] if arguments else []), *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Error: " in done.stderr
    assert not is_mountpoint(where)


def test_the_largest_numbers_work(mount: MountFactory, clients: ClientFactory) -> None:
    largest = str(2**32 - 2)
    arguments = ("--uid", largest, "--gid", largest, "--message-wait-timeout", str(2**31 - 1))
    device = mount(*arguments, "--number-of-users", str(2**32 - 1), "--message-buf-len", "65536")
    found = clients().call("os.stat", device.path)
    assert (found.st_uid, found.st_gid) == (2**32 - 2, 2**32 - 2)
    client = clients()
    descriptor = open_device(client, device)
    assert exchange(device, client, client, descriptor, b"abc") == b"cba"


def test_a_request_that_fails_is_1(device: MountedDevice) -> None:
    done = run_command("request", "raw", "--mount", str(device.mountpoint), "00")
    assert (done.returncode, done.stdout) == (1, "")
    assert "you have no key daemon" in done.stderr


def test_unmounting_where_nothing_is_mounted_is_32(tmp_path: Path) -> None:
    done = run_command("umount", str(tmp_path))
    assert (done.returncode, done.stdout) == (32, "")
    assert done.stderr == f"Error: nothing is mounted at {tmp_path}\n"
