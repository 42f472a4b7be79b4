"""A device mounted by the real command line, for tests."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.client import PATIENCE

COMMAND = (sys.executable, "-m", "ecryptfs_cuse.cli.main")

MUST_TRUST = "ecryptfs-cuse: with --transport pyfuse3 users must trust one another\n"


def run_command(*arguments: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run ``ecryptfs-cuse`` to its end."""
    return subprocess.run(
        [*prefix, *COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def is_mountpoint(path: Path) -> bool:
    """Whether the kernel's list of mounts has it."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split(" ")[4] == str(path) for line in mounts)


class MountedDevice:
    """``ecryptfs-cuse mount`` as a process. Starts at once, and waits for its line or its death."""

    def __init__(self, mountpoint: Path, *arguments: str, prefix: tuple[str, ...] = ()) -> None:
        with suppress(FileExistsError):
            mountpoint.mkdir()
        self.mountpoint = mountpoint
        self.path = str(mountpoint / "dev" / "ecryptfs")
        self.request_path = str(mountpoint / "control" / "request")
        self.status_path = str(mountpoint / "control" / "status")
        is_shared = {"--allow-other", "pyfuse3"} <= {*arguments}
        self._warning = MUST_TRUST if is_shared else ""
        self.process = subprocess.Popen(
            # A test run that is killed takes its servers with it.
            [
                *prefix,
                "setpriv",
                "--pdeathsig=TERM",
                *COMMAND,
                "mount",
                str(mountpoint),
                *arguments,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        found = select.select([self.process.stdout], [], [], PATIENCE)[0]
        self.ready_line = self.process.stdout.readline().decode() if found else ""
        if self.ready_line != f"ready: {self.path}\n":
            self.process.kill()
            said = self.process.communicate()[1].decode()
            raise AssertionError(f"not mounted: {self.ready_line!r} {said}")

    @property
    def is_mounted(self) -> bool:
        """Whether the kernel's list of mounts has it."""
        return is_mountpoint(self.mountpoint)

    def status(self) -> dict[str, Any]:
        """What control/status says."""
        content: dict[str, Any] = json.loads((self.mountpoint / "control" / "status").read_text())
        return content

    def wait_status(self, *path: str | int, equals: Any) -> None:
        """Wait until a value in the status is what it should become."""
        deadline = time.monotonic() + PATIENCE
        while True:
            value: Any = self.status()
            for key in path:
                value = value[key]
            if value == equals:
                return
            assert time.monotonic() < deadline, f"{path} is {value!r}, not {equals!r}"
            os.sched_yield()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it by a signal; check that it ended well."""
        self.process.send_signal(number)
        self.check_end()

    def check_end(self, warnings: str = "") -> None:
        """Wait for its end: exit status 0, nothing mounted, nothing said that was not expected."""
        out, said = self.process.communicate(timeout=PATIENCE)
        expected = self._warning + warnings
        assert (self.process.returncode, out, said.decode()) == (0, b"", expected)
        assert not self.is_mounted

    def clean_up(self) -> None:
        """Whatever the test has left behind."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        if self.is_mounted:
            subprocess.run(["fusermount3", "-u", "-z", str(self.mountpoint)], check=False)
