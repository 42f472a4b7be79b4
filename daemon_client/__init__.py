"""The key daemon: answers eCryptfs' requests for file keys, on any /dev/ecryptfs.

    from daemon_client import Daemon, load_key

    async with Daemon("/dev/ecryptfs", [load_key("key.pem")]) as daemon:
        await daemon.run()

The command is ``ecryptfs-keyd``.
"""

from daemon_client.daemon import Daemon
from daemon_client.device import DaemonError, DeviceGoneError, DeviceOpenError
from daemon_client.key import Key, KeyOpenError, KeyOperationError
from daemon_client.modules.openssl import load_key

__all__ = [
    "Daemon",
    "DaemonError",
    "DeviceGoneError",
    "DeviceOpenError",
    "Key",
    "KeyOpenError",
    "KeyOperationError",
    "load_key",
]
