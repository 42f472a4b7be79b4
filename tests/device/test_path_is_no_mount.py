"""What happens at the path of a device while it is mounted, and when it is mounted.

The device is known by its mount: others can cover it, move it, and come at the same moment.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.client import PATIENCE
from tests.conftest import ClientFactory, let_everyone_in
from tests.device.traffic import exchange, open_device
from tests.mounted import COMMAND, MountedDevice, is_mountpoint, run_command

Tmpfs = Callable[[Path], None]


@pytest.fixture
def tmpfs() -> Iterator[Tmpfs]:
    """Mount a tmpfs somewhere, for the time of the test."""
    mounted: list[Path] = []

    def mount_tmpfs(where: Path) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(where)], check=True)
        mounted.append(where)

    yield mount_tmpfs
    for where in mounted:
        subprocess.run(["umount", "-l", str(where)], capture_output=True, check=False)


def type_at(where: Path) -> str | None:
    """The type of the topmost file system that is mounted there."""
    found = None
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        if fields[4] == str(where):
            found = fields[fields.index("-") + 1]
    return found


def covered(where: Path) -> str:
    """What is said of a device that something is mounted on."""
    return (
        f"Error: another mount (tmpfs) is on top of the device at {where}: "
        f"unmount that first, then: ecryptfs-cuse umount {where}\n"
    )


@pytest.mark.parametrize("way", ["rename", "move"])
def test_a_device_that_is_moved_goes_on_and_is_unmounted_where_it_is(
    tmp_path: Path, transport: str, clients: ClientFactory, tmpfs: Tmpfs, way: str
) -> None:
    for name in ("before", "after", "else"):
        (tmp_path / name).mkdir()
    device = MountedDevice(tmp_path / "before" / "mount", "--transport", transport)
    where = tmp_path / "after" / "mount"
    try:
        if way == "move":
            where.mkdir()
            subprocess.run(["mount", "--move", str(device.mountpoint), str(where)], check=True)
        else:
            (tmp_path / "before").rename(tmp_path / "after")
        tmpfs(tmp_path / "else")  # a change of the list of mounts, which the server looks at
        client = clients()
        device.path = str(where / "dev" / "ecryptfs")
        device.request_path = str(where / "control" / "request")
        descriptor = open_device(client, device)
        for _ in range(10):
            assert exchange(device, client, client, descriptor, b"abc") == b"cba"
        device.stop()
        assert type_at(where) is None
    finally:
        device.clean_up()
        if type_at(where) is not None:
            subprocess.run(["umount", "-l", str(where)], check=True)


def test_what_is_mounted_on_top_of_the_device_stays_when_the_server_ends(
    tmp_path: Path, transport: str, tmpfs: Tmpfs
) -> None:
    where = tmp_path / "mount"
    device = MountedDevice(where, "--transport", transport)
    tmpfs(where)
    (where / "file").touch()
    done = run_command("umount", str(where))
    assert (done.returncode, done.stderr) == (32, covered(where))
    device.process.terminate()
    _, said = device.process.communicate(timeout=PATIENCE)
    assert (device.process.returncode, said.decode()) == (32, covered(where))
    assert (where / "file").exists()
    for command in ("mount", "umount"):
        done = run_command(command, str(where))
        assert (done.returncode, done.stderr) == (32, covered(where))
    subprocess.run(["umount", str(where)], check=True)
    assert run_command("umount", str(where)).returncode == 0
    assert not is_mountpoint(where)


def test_umount_leaves_what_is_no_device_of_ours(tmp_path: Path, tmpfs: Tmpfs) -> None:
    tmpfs(tmp_path)
    with (tmp_path / "file").open("w"):
        done = run_command("umount", str(tmp_path))
    assert done.returncode == 32
    assert done.stderr == (
        f"Error: {tmp_path} is not a device of ecryptfs-cuse, but a mount of type tmpfs: "
        "use umount(8) for it\n"
    )
    assert type_at(tmp_path) == "tmpfs"
    (tmp_path / "directory").mkdir()
    done = run_command("umount", str(tmp_path / "directory"))
    assert (done.returncode, done.stderr) == (
        32,
        f"Error: nothing is mounted at {tmp_path / 'directory'}\n",
    )


_SLOW_FUSERMOUNT = """\
#!/usr/bin/python3
# fusermount3 that tells a socket that it has started and that it has mounted, and each time goes on
# when it is told to, or dies.
import os, shutil, signal, socket, subprocess, sys

def step(name):
    with socket.socket(socket.AF_UNIX) as told:
        told.connect(os.environ["STEPS"])
        told.send(name)
        if told.recv(1) == b"k":
            os.kill(os.getpid(), signal.SIGKILL)

real = os.environ["FUSERMOUNT"]
if "-u" in sys.argv:
    os.execv(real, sys.argv)
step(b"started")
ours, theirs = socket.socketpair()
done = subprocess.run(
    [real, *sys.argv[1:]],
    env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
    pass_fds=[theirs.fileno()],
)
if done.returncode == 0:
    _, found, _, _ = socket.recv_fds(ours, 1, 1)
    step(b"mounted")
    socket.send_fds(socket.socket(fileno=int(os.environ["_FUSE_COMMFD"])), [b"0"], found)
sys.exit(done.returncode)
"""


class Steps:
    """The steps of servers that start with the slow fusermount3."""

    def __init__(self, directory: Path) -> None:
        program = directory / "bin" / "fusermount3"
        program.parent.mkdir()
        program.write_text(_SLOW_FUSERMOUNT)
        program.chmod(0o755)
        real = subprocess.run(["which", "fusermount3"], capture_output=True, text=True, check=True)
        self.environment = {
            **os.environ,
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "FUSERMOUNT": real.stdout.strip(),
            "STEPS": str(directory / "steps"),
        }
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(self.environment["STEPS"])
        self._listening.listen()
        self._listening.settimeout(PATIENCE)

    def next(self, name: bytes) -> socket.socket:
        """Wait for a step; it is gone on from when something is sent."""
        step, _ = self._listening.accept()
        step.settimeout(PATIENCE)
        assert step.recv(16) == name
        return step

    def has_next(self) -> bool:
        """Whether somebody has come to a step that nobody has waited for."""
        self._listening.settimeout(0)
        try:
            self._listening.accept()[0].close()
        except BlockingIOError:
            return False
        finally:
            self._listening.settimeout(PATIENCE)
        return True

    def start(self, where: Path) -> "subprocess.Popen[str]":
        """Start a server, in a process group of its own as from a terminal."""
        return subprocess.Popen(
            [*COMMAND, "mount", str(where)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def close(self) -> None:
        """Let nobody wait for us."""
        self._listening.close()


@pytest.fixture
def steps(tmp_path: Path) -> Iterator[Steps]:
    """A fusermount3 that goes on when it is told to."""
    found = Steps(tmp_path)
    yield found
    found.close()


def go_on(step: socket.socket) -> None:
    """Let fusermount3 go on."""
    with step:
        step.send(b"g")


def test_of_two_that_mount_at_the_same_moment_one_wins(tmp_path: Path, steps: Steps) -> None:
    where = tmp_path / "mount"
    where.mkdir()
    first = steps.start(where)
    started = steps.next(b"started")
    second = steps.start(where)
    # It waits for the first one's end, with the directory open, or else has started to mount.
    opened = Path(f"/proc/{second.pid}/fd")
    deadline = time.monotonic() + PATIENCE
    while not any(holds(descriptor, where) for descriptor in opened.iterdir()):
        assert not steps.has_next(), "both mount"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert not steps.has_next(), "both mount"
    go_on(started)
    go_on(steps.next(b"mounted"))
    assert first.stdout is not None
    assert first.stdout.readline() == f"ready: {where}/dev/ecryptfs\n"
    out, said = second.communicate(timeout=PATIENCE)
    assert (second.returncode, out) == (32, "")
    assert said == f"Error: {where} serves a device already: unmount it first\n"
    first.terminate()
    assert (first.communicate(timeout=PATIENCE), first.returncode) == (("", ""), 0)
    assert not is_mountpoint(where)


def holds(descriptor: Path, where: Path) -> bool:
    """Whether a descriptor in /proc, which may be gone by now, is of a directory."""
    try:
        flags = Path(f"/proc/{descriptor.parts[2]}/fdinfo/{descriptor.name}").read_text()
        return os.readlink(descriptor) == str(where) and "flags:\t010" not in flags
    except OSError:
        return False


def test_ctrl_c_between_mounting_and_serving_leaves_nothing_mounted(
    tmp_path: Path, steps: Steps
) -> None:
    where = tmp_path / "mount"
    where.mkdir()
    server = steps.start(where)
    go_on(steps.next(b"started"))
    mounted = steps.next(b"mounted")
    assert is_mountpoint(where)
    os.killpg(server.pid, signal.SIGINT)
    go_on(mounted)
    _, said = server.communicate(timeout=PATIENCE)
    assert (server.returncode, said) == (0, "")
    assert not is_mountpoint(where)


def test_a_fusermount_that_is_killed_after_mounting_leaves_nothing_mounted(
    tmp_path: Path, steps: Steps
) -> None:
    where = tmp_path / "mount"
    where.mkdir()
    server = steps.start(where)
    go_on(steps.next(b"started"))
    with steps.next(b"mounted") as mounted:
        mounted.send(b"k")
    out, said = server.communicate(timeout=PATIENCE)
    assert (server.returncode, out) == (32, "")
    assert said == "Error: fusermount3 failed: exit status -9\n"
    assert not is_mountpoint(where)


@pytest.mark.parametrize("mountpoint", ["", "/", "//", "/proc/..", "/proc/self/root"])
def test_the_root_directory_and_no_directory_are_refused(mountpoint: str) -> None:
    # In a mount namespace of its own: were they not refused, no program would be found any more.
    done = run_command("mount", mountpoint, prefix=("unshare", "-m", "--propagation", "private"))
    assert (done.returncode, done.stdout) == (32, "")
    assert done.stderr in (
        "Error: the name of the mount point is empty: name a directory\n",
        "Error: the device would hide the root directory: choose another directory\n",
    )


@pytest.mark.parametrize("given", ["link", "link/", "directory/../link", "real/.", "./real//"])
def test_the_mount_point_is_where_the_path_leads(tmp_path: Path, given: str) -> None:
    for name in ("directory", "real"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("real")
    device = MountedDevice(tmp_path / given)
    assert is_mountpoint(tmp_path / "real")
    done = run_command("mount", str(tmp_path / "link"))
    assert done.stderr == f"Error: {tmp_path / 'real'} serves a device already: unmount it first\n"
    assert run_command("umount", f"{tmp_path}/{given}").returncode == 0
    device.check_end()
    assert not is_mountpoint(tmp_path / "real")


def test_a_symbolic_link_to_a_stale_mount_leads_to_it_too(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("mount")
    killed = MountedDevice(tmp_path / "mount")
    killed.process.kill()
    killed.process.communicate()
    device = MountedDevice(tmp_path / "link")
    device.process.terminate()
    device.check_end(
        f"ecryptfs-cuse: cleared the stale mount at {killed.mountpoint}: its server had died\n"
    )
    assert not killed.is_mounted


def test_a_directory_of_which_the_lock_is_held_is_mounted_on_all_the_same(tmp_path: Path) -> None:
    where = tmp_path / "mount"
    where.mkdir()
    let_everyone_in(where)
    holding = subprocess.Popen(
        ["flock", str(where), "sh", "-c", "echo locked; read line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holding:
        assert holding.stdout is not None
        assert holding.stdout.readline() == b"locked\n"
        MountedDevice(where).stop()
