"""A mount namespace with a /dev and a /sys/fs of its own.

ecryptfsd opens /dev/ecryptfs and reads /sys/fs/ecryptfs/version and cannot be told otherwise. In
here these names are free to be given to any device, and the host's /dev and /sys never change, not
even if a test is killed.
"""

import subprocess
from pathlib import Path

from tests.client import PATIENCE
from tests.closing import Closing
from tests.ecryptfsd.key_modules import key_module_directory
from tests.ecryptfsd.programs import require
from tests.mounted import MountedDevice

# The device files are the host's, bound: containers may not be allowed to mknod.
_SET_UP = """
set -e
mount -t tmpfs -o mode=0755 tmpfs /sys/fs
mkdir -p /sys/fs/ecryptfs /sys/fs/dev/misc
for name in null urandom fuse; do
    touch /sys/fs/dev/$name
    mount --bind /dev/$name /sys/fs/dev/$name
done
mount --rbind /sys/fs/dev /dev
echo ready
exec cat
"""


class PrivateNamespace(Closing):
    """Has the mounts that the host has when it is made, and none that come later.

    Exists while its holder does: a ``cat`` that ends when its standard input is closed.
    """

    def __init__(self) -> None:
        require("unshare", "nsenter", "setpriv")
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", _SET_UP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"ready\n":
            said = self._holder.communicate(timeout=PATIENCE)[1].decode()
            raise AssertionError(f"no private mount namespace: {said}")
        self._process = Path(f"/proc/{self._holder.pid}")
        self.prefix = ("nsenter", f"--mount={self._process}/ns/mnt", "--wdns=/", "--")

    def run(self, *command: str) -> None:
        """Run a command in the namespace; it has to succeed."""
        subprocess.run([*self.prefix, *command], check=True, timeout=PATIENCE)

    def outside(self, path: str | Path) -> Path:
        """Where a path of the namespace is for those who are not in it."""
        return self._process / "root" / Path(path).relative_to("/")

    def has_mounted(self, path: str | Path) -> bool:
        """Whether something is mounted there in the namespace."""
        lines = (self._process / "mountinfo").read_text().splitlines()
        return any(line.split(" ")[4] == str(path) for line in lines)

    def show(self, device: MountedDevice) -> None:
        """Put a device of the host where the kernel's own would be."""
        self.run("touch", "/dev/ecryptfs")
        self.run("mount", "--bind", device.path, "/dev/ecryptfs")
        self.show_version(device.mountpoint)

    def show_version(self, mountpoint: Path) -> None:
        """Put a device's version where the kernel's own module would show its."""
        self.run("mount", "--bind", str(mountpoint / "sys/fs/ecryptfs"), "/sys/fs/ecryptfs")

    def show_key_modules(self, directory: Path) -> None:
        """Put a directory of key modules where libecryptfs looks for them."""
        self.run("mount", "--bind", str(directory), str(key_module_directory()))

    def close(self) -> None:
        """End it; the mounts in it go with the last process in it."""
        self._holder.communicate(timeout=PATIENCE)


class DeviceInside(MountedDevice):
    """``ecryptfs-cuse mount --bind`` in a namespace; its paths are those seen from outside."""

    def __init__(
        self, namespace: PrivateNamespace, mountpoint: Path, bind: str, *arguments: str
    ) -> None:
        prefix = (*namespace.prefix, "setpriv", "--pdeathsig=TERM")
        super().__init__(mountpoint, "--bind", bind, *arguments, prefix=prefix)
        self.namespace = namespace
        self._inner = mountpoint
        self.mountpoint = namespace.outside(mountpoint)
        self.path = str(namespace.outside(self.path))
        self.request_path = str(namespace.outside(self.request_path))
        namespace.show_version(mountpoint)

    @property
    def is_mounted(self) -> bool:
        """Whether the namespace's list of mounts has it."""
        return self.namespace.has_mounted(self._inner)
