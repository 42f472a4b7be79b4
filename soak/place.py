"""Where it all happens: the paths of a mounted device, and what its messages carry here."""

import re
import time
from dataclasses import dataclass
from pathlib import Path

_MARK = re.compile(rb"soak:(\d+):")


@dataclass(frozen=True, slots=True)
class Place:
    """A mounted tree. timeout: how long its requests wait, in seconds. scratch: a directory."""

    root: Path
    scratch: Path
    timeout: float

    @property
    def device(self) -> str:
        """The device."""
        return str(self.root / "dev" / "ecryptfs")

    @property
    def request(self) -> str:
        """Where requests are raised."""
        return str(self.root / "control" / "request")

    @property
    def status(self) -> str:
        """Who is registered and what is under way."""
        return str(self.root / "control" / "status")

    @property
    def directories(self) -> tuple[str, ...]:
        """Directories of the tree."""
        below = ("", "dev", "control", "sys", "sys/fs/ecryptfs", "sys/module/ecryptfs/parameters")
        return tuple(str(self.root / path) for path in below)

    @property
    def files(self) -> tuple[str, ...]:
        """Files of the tree: each kind that there is."""
        texts = (
            "sys/fs/ecryptfs/version",
            "sys/module/ecryptfs/parameters/ecryptfs_message_buf_len",
        )
        return (self.device, self.request, self.status, *(str(self.root / text) for text in texts))


def marked(uid: int, serial: int) -> bytes:
    """The beginning of a request: whose it is, which one, and when it was sent."""
    return b"soak:%d:%d:%d:" % (uid, serial, time.monotonic_ns())


def age_seconds(data: bytes) -> float:
    """How long ago a request was sent."""
    return (time.monotonic_ns() - int(data.split(b":")[3])) / 1e9


def check_ours(octets: bytes, uid: int) -> None:
    """Nothing in what a user got is another's."""
    for owner in _MARK.findall(octets):
        if int(owner) != uid:
            raise AssertionError(f"user {uid} has got what is of user {int(owner)}")
