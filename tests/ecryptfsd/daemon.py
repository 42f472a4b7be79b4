"""The real ecryptfsd, as Debian ships it: start it, wait for it, end it."""

import os
import signal
import subprocess
import time

from tests.client import PATIENCE
from tests.closing import Closing
from tests.ecryptfsd.namespace import PrivateNamespace
from tests.ecryptfsd.programs import require
from tests.mounted import MountedDevice

DEVICE_REFUSED = 251
"""Its exit status where it cannot open the device, and where nine reads in a row fail."""

# Its keys are in the user keyring, which it finds where its session keyring links to it. The
# session is its own, so that no keyring of the host gets the link.
_LINK_AND_RUN = "keyctl link @u @s && exec ecryptfsd -f"


class RealDaemon(Closing):
    """``ecryptfsd -f`` on a device, as user ``uid``. Ends with this process at the latest."""

    def __init__(
        self,
        namespace: PrivateNamespace,
        device: MountedDevice,
        uid: int,
        environment: dict[str, str],
    ) -> None:
        require("ecryptfsd", "keyctl", "setpriv")
        user = () if uid == os.geteuid() else (f"--reuid={uid}", f"--regid={uid}", "--clear-groups")
        # Each of these becomes the next: the process that is started is the daemon.
        self.process = subprocess.Popen(
            [
                *namespace.prefix,
                *("setpriv", *user, "--pdeathsig=KILL"),
                *("keyctl", "session", "-", "sh", "-c", _LINK_AND_RUN),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
        )
        self._device = device
        self._uid = uid

    def wait_reading(self) -> None:
        """Wait until it is inside read, which it enters only after its HELO was accepted."""
        deadline = time.monotonic() + PATIENCE
        while not self._is_reading():
            assert self.process.poll() is None, f"ecryptfsd has ended: {self.said()}"
            assert time.monotonic() < deadline, "ecryptfsd does not read"
            os.sched_yield()

    def _is_reading(self) -> bool:
        return any(
            daemon["euid"] == self._uid and "IN_READ" in daemon["flags"]
            for daemon in self._device.status()["daemons"]
        )

    def kill(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def wait(self, seconds: float = PATIENCE) -> int:
        """Wait until it is gone; its exit status, or minus the signal."""
        return self.process.wait(seconds)

    def said(self) -> str:
        """Everything that it said until its end."""
        output: str = self.process.communicate(timeout=PATIENCE)[0].decode()
        return output

    def close(self) -> None:
        """Kill it and wait until it is gone."""
        assert self.process.stdout is not None
        self.process.kill()
        self.process.stdout.close()
        self.process.wait(PATIENCE)
