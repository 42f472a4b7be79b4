"""A real kernel: its own /dev/ecryptfs, requests raised by an eCryptfs mount in public key mode.

Only for a machine that may crash: see tools/kernel-vm.
"""

import os
import re
import subprocess
import tempfile
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.client import Client
from tests.conformance.system import Asked, System
from tests.ecryptfsd.auth_token import in_user_keyring, private_key_token

SIGNATURE = "0123456789abcdef"
_DEVICE = "/dev/ecryptfs"
_TIMEOUT = 3.0
_BROKEN = re.compile("kernel BUG|BUG: unable|BUG: kernel|Oops|general protection fault")


class KernelSystem(System):
    """The machine's /dev/ecryptfs, and an eCryptfs mount over a file system in memory."""

    name = "kernel"
    timeout = _TIMEOUT

    def __init__(self) -> None:
        super().__init__()
        if "guest_script=" not in Path("/proc/cmdline").read_text():
            pytest.exit("these cases might crash a kernel: run them with tools/kernel-vm", 3)
        self._numbers = count()
        self._log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self._log, 0, os.SEEK_END)
        self._mounts, self._encrypted = ExitStack(), ExitStack()
        self._parameters: dict[str, int] = {}
        self._loaded_with: dict[str, int] = {}
        below = Path(tempfile.mkdtemp(prefix="conformance-"))
        below.chmod(0o755)
        self._lower, self._upper = below / "lower", below / "upper"
        _mount(self._mounts, "tmpfs", "tmpfs", below, "mode=0755")
        self._lower.mkdir()
        self._upper.mkdir()
        self._begin()

    @property
    def device(self) -> str:
        if self._loaded_with != self._parameters:
            self._load_again()
        return _DEVICE

    def restart(self, **parameters: int) -> None:
        self.timeout, self._parameters = (
            parameters.get("message_wait_timeout", _TIMEOUT),
            parameters,
        )
        self._load_again()

    def identify_by(self, rule: str) -> None:
        pass

    def _load_again(self) -> None:
        self._encrypted.close()
        subprocess.run(["rmmod", "ecryptfs"], check=True)
        given = [f"ecryptfs_{name}={value}" for name, value in self._parameters.items()]
        subprocess.run(["modprobe", "ecryptfs", *given], check=True)
        self._loaded_with = self._parameters
        self._begin()

    def _begin(self) -> None:
        """Let everyone open the device, and mount."""
        os.chmod(_DEVICE, 0o666)
        # The kernel looks for the key when it mounts, and keeps it.
        with in_user_keyring(SIGNATURE, private_key_token(SIGNATURE, "conformance", b"")):
            cipher = "ecryptfs_cipher=aes,ecryptfs_key_bytes=16"
            options = f"ecryptfs_sig={SIGNATURE},{cipher}"
            _mount(self._encrypted, "ecryptfs", str(self._lower), self._upper, options)

    def settle(self) -> None:
        super().settle()
        self._check_log()
        self.timeout, self._parameters = _TIMEOUT, {}

    def stop(self) -> None:
        super().stop()
        self._encrypted.close()
        self._mounts.close()

    def _check_log(self) -> None:
        """A kernel that has met a bug of its own is good for nothing more."""
        while True:
            try:
                record = os.read(self._log, 8192).decode(errors="replace")
            except BlockingIOError:
                return
            except BrokenPipeError:  # records were overwritten before they were read
                continue
            if _BROKEN.search(record):
                pytest.exit(f"the kernel is broken: {record}", 3)

    def create(self, client: Client) -> Asked:
        # In a directory of its own: the kernel holds the directory's lock until the answer.
        directory = self._upper / str(next(self._numbers))
        directory.mkdir()
        directory.chmod(0o777)
        path = str(directory / "file")
        return self._ask(
            client, "create_file", path, verdict=lambda result: (result[0], result[1], path)
        )

    def open(self, client: Client, file: Any) -> Asked:
        # An inode that is in the cache has its key already; a dirty one stays. 2: inodes, no pages.
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("2")
        return self._ask(
            client, "open_file", file, verdict=lambda result: (result[0], result[1], None)
        )


def _mount(mounts: ExitStack, kind: str, what: str, where: Path, options: str) -> None:
    # -i: not by way of ecryptfs-utils' mount.ecryptfs, which asks questions.
    subprocess.run(["mount", "-i", "-t", kind, "-o", options, what, str(where)], check=True)
    mounts.callback(subprocess.run, ["umount", str(where)], check=True)
