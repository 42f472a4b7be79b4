"""What the device's log tells of its daemons: mount it with ``-v``, and end it here."""

import signal

from tests.client import PATIENCE
from tests.mounted import MountedDevice

_ABOUT_DAEMONS = "ecryptfs-cuse: user "


def log_at_end(device: MountedDevice) -> list[str]:
    """End the device; what happened to the daemons of each user, such as "0: HELO"."""
    device.process.send_signal(signal.SIGTERM)
    said = device.process.communicate(timeout=PATIENCE)[1].decode()
    assert (device.process.returncode, device.is_mounted) == (0, False), said
    return [
        line.removeprefix(_ABOUT_DAEMONS)
        for line in said.splitlines()
        if line.startswith(_ABOUT_DAEMONS)
    ]
