"""A directory that the kernel's own eCryptfs encrypts, in public key mode, and its files."""

import errno
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.kernel.keyd import PATIENCE
from tests.kernel.keys import ServedKey

PLAIN = b"nobody is to read this below. "

_PAGE = 4096
_FIRST = "first"

FILES: Mapping[str, bytes] = {
    "empty": b"",
    "small": PLAIN,
    "one page": (PLAIN * _PAGE)[:_PAGE],
    "several pages": (PLAIN * _PAGE)[: 3 * _PAGE + 1],
    "ünïcödé, and long".ljust(200, "."): 2 * PLAIN,
}
"""Names and contents of files."""


class EncryptedFolder:
    """A folder below ``where``; its files have AES keys of ``key_size`` octets.

    lower: what is stored. upper: where it is read and written in the clear, while it is mounted.
    """

    def __init__(self, where: Path, key: ServedKey, key_size: int = 16) -> None:
        self.key = key
        self.lower, self.upper = where / "lower", where / "upper"
        self.lower.mkdir(parents=True)
        self.upper.mkdir()
        self._options = (
            f"ecryptfs_sig={key.signature},ecryptfs_cipher=aes,ecryptfs_key_bytes={key_size}"
        )

    @contextmanager
    def mounted(self, token: AbstractContextManager[None] | None = None) -> Iterator[None]:
        """Mount it for the time of a block; then the kernel has forgotten all of its files.

        token: puts the key's token into the keyring for the kernel, which keeps it for itself as
        long as it is mounted. The daemon finds it there no longer.
        """
        with token or self.key.token():
            # -i: not by way of ecryptfs-utils' mount.ecryptfs, which asks questions.
            _run("mount", "-i", "-t", "ecryptfs", "-o", self._options, self.lower, self.upper)
        try:
            yield
        finally:
            _run("umount", self.upper)

    def wait_served(self) -> None:
        """Wait until the daemon has opened the key.

        In the virtual machine that may take it longer than the kernel waits for an answer.
        """
        deadline = time.monotonic() + PATIENCE
        while error := self.create(_FIRST):
            assert time.monotonic() < deadline, f"the daemon does not serve the key: {error}"
        (self.upper / _FIRST).unlink()

    def fill(self) -> None:
        """Write all FILES, one after the other."""
        self.wait_served()
        for name, content in FILES.items():
            (self.upper / name).write_bytes(content)

    def content(self) -> dict[str, bytes]:
        """What its files contain, by name."""
        return _content(self.upper)

    def stored(self) -> dict[str, bytes]:
        """The octets of the files that are stored, by name."""
        return _content(self.lower)

    def create(self, name: str) -> str | None:
        """Create an empty file, and close it: the error's name, None where there is none."""
        return failure(lambda: os.open(self.upper / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL))

    def open(self, name: str) -> str | None:
        """Open a file, and close it: the error's name, None where there is none."""
        return failure(lambda: os.open(self.upper / name, os.O_RDONLY))


def failure(opening: Callable[[], int]) -> str | None:
    """The name of the error with which an open file was not to be had."""
    try:
        os.close(opening())
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return None


@contextmanager
def memory_at(where: Path) -> Iterator[None]:
    """A file system in memory, for the time of a block."""
    _run("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", where)
    try:
        yield
    finally:
        _run("umount", where)


def _content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True)
