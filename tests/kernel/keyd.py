"""ecryptfs-keyd as a process on the kernel's device."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.ecryptfsd.programs import require

COMMAND = (sys.executable, "-m", "daemon_client.cli.main", "--config", os.devnull)
DEVICE = "/dev/ecryptfs"
PATIENCE = 120.0
"""Seconds after which a test gives up: the virtual machine takes ten to start a daemon."""


class Keyd:
    """``ecryptfs-keyd``, once started; again and again, if need be.

    log: the file that it writes its log to, new at each start.
    environment: what it needs in its environment, besides ours.
    """

    def __init__(self, log: Path, environment: Mapping[str, str]) -> None:
        require("keyctl", "setpriv")
        self._log = log
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self, *arguments: str) -> None:
        """Start it, and wait until it is registered. Ends with this process at the latest."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    # A session keyring of its own, which has no link to the user keyring.
                    *("setpriv", "--pdeathsig=KILL", "keyctl", "session", "-"),
                    *(*COMMAND, "--verbose", *arguments),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment,
                bufsize=0,
            )
        assert self._process.stdout is not None
        found = select.select([self._process.stdout], [], [], PATIENCE)[0]
        line = self._process.stdout.readline() if found else b""
        if line != f"ready: {DEVICE}\n".encode():
            self.kill()
            raise AssertionError(f"ecryptfs-keyd does not serve: {line!r} {self.said()}")

    def stop(self) -> int:
        """End it as a person would; its exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.communicate(timeout=PATIENCE)
        return self._process.returncode

    def kill(self) -> None:
        """Whatever is left of it."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def said(self) -> str:
        """Its log since its start."""
        return self._log.read_text()

    def wait_said(self, text: str, times: int = 1) -> None:
        """Wait until a text is in its log so many times, and not one more."""
        deadline = time.monotonic() + PATIENCE
        while (found := self.said().count(text)) < times:
            assert time.monotonic() < deadline, f"{text!r} was said {found} times: {self.said()}"
            time.sleep(0.01)
        assert found == times
