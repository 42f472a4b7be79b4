"""A server that is stopped answers nobody: our commands say so, and unmount all the same."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.client import PATIENCE
from tests.conftest import let_everyone_in
from tests.device.test_ordinary_user import AS_USER, UID
from tests.mounted import COMMAND, MountedDevice, run_command


@contextmanager
def stopped(device: MountedDevice) -> Iterator[None]:
    """Stop the server during the block; its end must be a good one after that."""
    device.process.send_signal(signal.SIGSTOP)
    try:
        os.waitid(os.P_PID, device.process.pid, os.WSTOPPED | os.WNOWAIT)
        yield
        device.process.send_signal(signal.SIGCONT)
        device.check_end()
    finally:
        device.process.send_signal(signal.SIGCONT)
        device.clean_up()


def test_no_command_waits_for_a_server_that_does_not_answer(tmp_path: Path) -> None:
    device = MountedDevice(tmp_path / "mount")
    where = str(device.mountpoint)
    silent = f"Error: the server of the device at {where} does not answer: it may be stopped\n"
    expected = {
        ("status", "--mount", where): (1, silent),
        ("request", "raw", "--mount", where, "00"): (1, silent),
        ("mount", where): (
            32,
            f"Error: {where} serves a device already, and its server does not answer: "
            "unmount it first\n",
        ),
        ("umount", f"{where}/dev/ecryptfs"): (
            32,
            f"Error: cannot open {where}/dev/ecryptfs: a file system on its path does not answer\n",
        ),
    }
    with stopped(device):
        running = {
            arguments: subprocess.Popen(
                [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            for arguments in expected
        }
        for arguments, process in running.items():
            out, said = process.communicate(timeout=PATIENCE)
            assert (out, (process.returncode, said)) == ("", expected[arguments])
        done = run_command("umount", where)
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr == f"{where} is unmounted, but its server is still running\n"
        assert not device.is_mounted


def test_an_ordinary_user_unmounts_a_server_that_does_not_answer(tmp_path: Path) -> None:
    let_everyone_in(tmp_path)
    where = tmp_path / "mount"
    where.mkdir()
    os.chown(where, UID, UID)
    device = MountedDevice(where, prefix=AS_USER)
    with stopped(device):
        done = run_command("umount", str(where), prefix=AS_USER)
        assert (done.returncode, done.stdout) == (0, "")
        assert not device.is_mounted
