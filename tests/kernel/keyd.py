"""ecryptfs-keyd as a process on the kernel's device."""

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import IO

from tests.ecryptfsd.programs import require

COMMAND = (sys.executable, "-m", "daemon_client.cli.main", "--config", os.devnull)
DEVICE = "/dev/ecryptfs"
PATIENCE = 120.0
"""Seconds after which a test gives up: the virtual machine takes ten to start a daemon."""


class Keyd:
    """``ecryptfs-keyd``, once started; again and again, if need be.

    environment: what it needs in its environment, besides ours.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        require("keyctl", "setpriv")
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self, *arguments: str) -> None:
        """Start it, and wait until it is registered. Ends with this process at the latest."""
        self._lines.clear()
        self._process = subprocess.Popen(
            [
                # A session keyring of its own, which has no link to the user keyring.
                *("setpriv", "--pdeathsig=KILL", "keyctl", "session", "-"),
                *(*COMMAND, "--verbose", *arguments),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment,
            bufsize=0,
        )
        assert self._process.stdout is not None
        self._listener = threading.Thread(target=self._listen, args=(self._process.stderr,))
        self._listener.start()
        found = select.select([self._process.stdout], [], [], PATIENCE)[0]
        line = self._process.stdout.readline() if found else b""
        if line != f"ready: {DEVICE}\n".encode():
            self.kill()
            raise AssertionError(f"ecryptfs-keyd does not serve: {line!r} {self.said()}")

    def stop(self) -> int:
        """End it as a person would; its exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._end()

    def kill(self) -> None:
        """Whatever is left of it."""
        if self._process is not None:
            self._process.kill()
            self._end()

    def _end(self) -> int:
        assert self._process is not None
        assert self._process.stdout is not None
        status = self._process.wait(PATIENCE)
        self._listener.join(PATIENCE)
        self._process.stdout.close()
        return status

    def said(self) -> str:
        """Its log since its start."""
        with self._news:
            return "".join(self._lines)

    def wait_said(self, text: str, times: int = 1) -> None:
        """Wait until a text is in its log so many times, and not one more."""
        with self._news:
            self._news.wait_for(lambda: self.said().count(text) >= times, PATIENCE)
            assert self.said().count(text) == times, self.said()

    def _listen(self, log: IO[bytes]) -> None:
        with log:
            for line in log:
                with self._news:
                    self._lines.append(line.decode())
                    self._news.notify_all()
