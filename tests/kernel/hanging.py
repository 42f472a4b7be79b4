"""A key module whose keys encrypt and never decrypt: a key store that hangs.

The daemon finds it by the entry point that ``installed`` makes.
"""

import logging
import threading
from pathlib import Path

from daemon_client.key import Key, KeyModule
from daemon_client.modules.openssl import OpenSsl, PemKey
from daemon_client.secret import Secret

ALIAS = "hanging"
HANGS = "it hangs"
"""What is in the daemon's log then."""


class Hanging(KeyModule):
    """PEM files again, so that the module openssl can read what this one has encrypted."""

    alias = ALIAS

    def open(self, location: str, passphrase: Secret | None) -> Key:
        return HangingKey(OpenSsl().open(location, passphrase))


class HangingKey(Key):
    """A key that hangs."""

    def __init__(self, key: PemKey) -> None:
        self._key = key
        self.signature = key.signature
        self.store = ALIAS

    def encrypt(self, payload: bytes) -> bytes:
        return self._key.encrypt(payload)

    def decrypt(self, ciphertext: bytes) -> bytes:
        logging.getLogger(__name__).info(HANGS)
        threading.Event().wait()
        raise AssertionError("nobody sets the event")

    def describe(self) -> str:
        return "a key that hangs"


def installed(directory: Path) -> None:
    """Fill a directory that, in PYTHONPATH, is as good as an installed package."""
    about = directory / "hanging-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: hanging\nVersion: 1\n")
    (about / "entry_points.txt").write_text(
        f"[ecryptfs_keyd.key_modules]\n{ALIAS} = {Hanging.__module__}:{Hanging.__name__}\n"
    )
