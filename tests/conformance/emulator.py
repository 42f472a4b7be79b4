"""The emulator: its device mounted with one of its transports, requests raised by control/request.

What control/request answers is translated into what the kernel's file operation would return.
"""

import os
from pathlib import Path
from typing import Any

from ecryptfs_cuse.core.keystore import decrypted_key, encrypted_key
from ecryptfs_cuse.wire.tags import FileKey, Tag64, Tag66, build_file_key, build_request
from tests.client import Client
from tests.conformance.daemon import attempt
from tests.conformance.system import Asked, ClientProcess, System
from tests.mounted import MountedDevice

SIGNATURE = "0123456789abcdef"
_AES_128 = 7


_TIMEOUT = 1.0


class EmulatedSystem(System):
    """``ecryptfs-cuse mount`` with one transport."""

    timeout = _TIMEOUT
    request_sleeps_in = {"x86_64": 0, "aarch64": 63}.get(os.uname().machine)  # read

    def __init__(self, transport: str, mountpoint: Path) -> None:
        super().__init__()
        self.name = transport
        if transport == "pyfuse3":
            self.interruption = 0.0
        self._mountpoint = mountpoint
        self._mounted: MountedDevice | None = None
        self._options: list[str] = []
        self._mounted_with: list[str] = []

    @property
    def mounted(self) -> MountedDevice:
        """The device, mounted when it is first needed."""
        if self._mounted_with != self._options:
            self._end_server()
        if self._mounted is None:
            self._mounted_with = self._options
            self._mounted = MountedDevice(
                self._mountpoint,
                *("--allow-other", "--mode", "0666", "--transport", self.name),
                *("--message-wait-timeout", str(self.timeout)),
                *self._options,
            )
        return self._mounted

    @property
    def device(self) -> str:
        return self.mounted.path

    def settle(self) -> None:
        super().settle()
        if self._mounted is not None:
            self.mounted.wait_status("daemons", equals=[])
            self.mounted.wait_status("contexts", "in_use", equals=[])

        self.timeout, self._options = _TIMEOUT, []

    def restart(self, **parameters: int) -> None:
        self._end_server()
        self.timeout = parameters.get("message_wait_timeout", _TIMEOUT)
        self._options = [
            f"--{name.replace('_', '-')}={value}" for name, value in parameters.items()
        ]

    def identify_by(self, rule: str) -> None:
        self._options = [f"--identity={rule}"]

    def _end_server(self) -> None:
        if self._mounted is not None:
            self._mounted.stop()
            self._mounted = None

    def stop(self) -> None:
        try:
            super().stop()
            if self._mounted is not None:
                self._mounted.stop()
        finally:
            self.unmount()

    def unmount(self) -> None:
        """End the server by force; it is mounted again when it is needed."""
        if self._mounted is not None:
            self._mounted.clean_up()
            self._mounted = None

    def _end(self, process: ClientProcess) -> None:
        if self.name == "pyfuse3":
            # A process of which a thread is in read cannot even be killed before the server is.
            self.unmount()
        super()._end(process)

    def create(self, client: Client) -> Asked:
        payload = build_file_key(FileKey(_AES_128, os.urandom(16)))
        request = build_request(Tag66(SIGNATURE, payload))
        return self._ask(client, "ask", self.mounted.request_path, request, verdict=_created)

    def open(self, client: Client, file: Any) -> Asked:
        request = build_request(Tag64(SIGNATURE, file))
        return self._ask(client, "ask", self.mounted.request_path, request, verdict=_opened)


def _created(result: tuple[str, bytes, float]) -> tuple[str, float, Any]:
    """Creating a file: a request that was not sent gives its errno, one without answer gives EIO.

    inode.c, ecryptfs_initialize_file; keystore.c, pki_encrypt_session_key.
    """
    outcome, answer, seconds = result
    if outcome != "OK":
        return {"ENOMSG": "EIO"}.get(outcome, outcome), seconds, None
    key = attempt(encrypted_key, answer)
    return (key, seconds, None) if isinstance(key, str) else ("OK", seconds, key)


def _opened(result: tuple[str, bytes, float]) -> tuple[str, float, Any]:
    """Opening a file: whatever fails gives EIO (file.c, ecryptfs_open; keystore.c)."""
    outcome, answer, seconds = result
    if outcome == "OK" and not isinstance(attempt(decrypted_key, answer), str):
        return "OK", seconds, None
    return "EIO", seconds, None
