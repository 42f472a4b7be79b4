"""ecryptfs-keyd as a process that knows no key but those in the user keyring."""

import os
import select
import signal
import subprocess
import sys

from tests.client import PATIENCE
from tests.closing import Closing
from tests.ecryptfsd.programs import require
from tests.mounted import MountedDevice

COMMAND = (sys.executable, "-m", "daemon_client.cli.main")


class OurDaemon(Closing):
    """``ecryptfs-keyd`` on a device, registered. Ends with this process at the latest."""

    def __init__(self, device: MountedDevice) -> None:
        require("keyctl", "setpriv")
        # A session keyring of its own, which has no link to the user keyring: it needs none.
        self.process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig=KILL", "keyctl", "session", "-"),
                *(*COMMAND, "--config", os.devnull, "--device", device.path),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        assert self.process.stdout is not None
        found = select.select([self.process.stdout], [], [], PATIENCE)[0]
        line = self.process.stdout.readline() if found else b""
        if line != f"ready: {device.path}\n".encode():
            self.process.kill()
            said = self.process.communicate()[1].decode()
            raise AssertionError(f"ecryptfs-keyd does not serve: {line!r} {said}")

    def stop(self) -> str:
        """End it as a person would; what it has logged."""
        self.process.send_signal(signal.SIGTERM)
        said = self.process.communicate(timeout=PATIENCE)[1].decode()
        assert self.process.returncode == os.EX_OK, said
        return said

    def close(self) -> None:
        """Whatever a test has left of it."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
