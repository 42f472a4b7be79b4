"""The device at another path: what is there before, at the same time and afterwards."""

import subprocess
from pathlib import Path

import pytest

from tests.mounted import MountedDevice, is_mountpoint, run_command


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A path where nothing is."""
    return tmp_path / "ecryptfs"


def kill(device: MountedDevice) -> None:
    """Let the server end as it should not."""
    device.process.kill()
    device.process.communicate()


def cleared(*paths: Path) -> str:
    """What a server says of the stale mounts that it has cleared away."""
    return "".join(
        f"ecryptfs-cuse: cleared the stale mount at {path}: its server had died\n" for path in paths
    )


def refused(where: Path, target: Path | str) -> str:
    """What is said when the device is not bound; nothing must stay mounted."""
    done = run_command("mount", str(where), "--bind", str(target))
    assert (done.returncode, done.stdout) == (32, "")
    assert not is_mountpoint(where)
    return done.stderr


def test_a_file_that_a_killed_server_has_left_is_taken_away_with_the_next_one(
    tmp_path: Path, target: Path
) -> None:
    for unmount in (False, True):
        kill(MountedDevice(tmp_path / "mount", "--bind", str(target)))
        if unmount:
            subprocess.run(["umount", "-l", str(target)], check=True)
            assert "ecryptfs-cuse" in target.read_text()
        device = MountedDevice(tmp_path / "mount", "--bind", str(target))
        device.process.terminate()
        device.check_end(cleared(device.mountpoint, *([] if unmount else [target])))
        assert not target.exists()


@pytest.mark.parametrize("content", ["", "A device"])
def test_a_file_that_somebody_else_has_made_stays_after_a_killed_server(
    tmp_path: Path, target: Path, content: str
) -> None:
    target.write_text(content)
    kill(MountedDevice(tmp_path / "mount", "--bind", str(target)))
    device = MountedDevice(tmp_path / "mount", "--bind", str(target))
    device.process.terminate()
    device.check_end(cleared(device.mountpoint, target))
    assert target.read_text() == content


def test_only_one_device_can_be_at_a_path(tmp_path: Path, target: Path) -> None:
    device = MountedDevice(tmp_path / "mount", "--bind", str(target))
    (tmp_path / "other").mkdir()
    said = refused(tmp_path / "other", target)
    assert said == f"Error: {target} serves a device already: unmount it first\n"
    assert is_mountpoint(target)
    device.stop()
    assert not target.exists()


def test_a_symbolic_link_leads_to_the_file_that_is_bound(tmp_path: Path, target: Path) -> None:
    link = tmp_path / "link"
    target.touch()
    link.symlink_to("ecryptfs")
    device = MountedDevice(tmp_path / "mount", "--bind", str(link))
    assert is_mountpoint(target)
    device.stop()
    assert (link.is_symlink(), is_mountpoint(target), target.exists()) == (True, False, True)


def test_a_directory_on_the_way_may_be_a_symbolic_link(tmp_path: Path, target: Path) -> None:
    (tmp_path / "link").symlink_to(".")
    device = MountedDevice(tmp_path / "mount", "--bind", str(tmp_path / "link" / "ecryptfs"))
    assert is_mountpoint(target)
    device.stop()
    assert not target.exists()


def test_what_cannot_be_bound_is_said_and_nothing_stays_mounted(
    tmp_path: Path, target: Path
) -> None:
    where = tmp_path / "mount"
    where.mkdir()
    (tmp_path / "nowhere").symlink_to("no such file")
    (tmp_path / "loop").symlink_to("loop")
    expected: dict[Path | str, str] = {
        tmp_path: f"{tmp_path} is a directory: name a file, or a new name in a directory",
        where: f"{where} is a directory: name a file, or a new name in a directory",
        where / "new": f"{where}/new is inside a device: choose a path outside",
        where
        / "dev"
        / "ecryptfs": f"cannot create {where}/dev/ecryptfs: No such file or directory",
        tmp_path / "nowhere": f"cannot create {tmp_path}/nowhere: No such file or directory",
        tmp_path / "loop": f"cannot open {tmp_path}/loop: Too many levels of symbolic links",
        f"{target}/": f"cannot create {target}/: No such file or directory",
        "": "cannot create : No such file or directory",
    }
    for path, sentence in expected.items():
        assert refused(where, path) == f"Error: {sentence}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loop", "mount", "nowhere"]


def test_what_is_mounted_on_top_of_a_bound_device_stays(tmp_path: Path, target: Path) -> None:
    top = tmp_path / "top"
    top.write_text("mine")
    device = MountedDevice(tmp_path / "mount", "--bind", str(target))
    subprocess.run(["mount", "--bind", str(top), str(target)], check=True)
    try:
        device.process.terminate()
        _, said = device.process.communicate()
        assert device.process.returncode == 32
        assert f"is on top of the device at {target}: unmount that first" in said.decode()
        assert target.read_text() == "mine"
        assert not device.is_mounted
    finally:
        subprocess.run(["umount", str(target)], check=True)
    assert run_command("umount", str(target)).returncode == 0
    assert not is_mountpoint(target)


@pytest.mark.parametrize("target", ["/dev/null", "/dev/zero", "link"])
def test_a_device_that_all_programs_use_is_not_covered(tmp_path: Path, target: str) -> None:
    where = tmp_path / "mount"
    where.mkdir()
    (tmp_path / "link").symlink_to("/dev/null")
    done = run_command("mount", str(where), "--bind", str(tmp_path / target))
    assert (done.returncode, done.stdout) == (32, "")
    assert "is a device that all programs use" in done.stderr
    assert not is_mountpoint(where)
