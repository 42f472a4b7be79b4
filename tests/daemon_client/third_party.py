"""A key module of another package, and how a package that brings one is installed for a test."""

import sys
import threading
from pathlib import Path
from typing import ClassVar

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from daemon_client.key import GROUP, KeyModule, KeyOpenError, WrongPassphraseError, key_module
from daemon_client.modules.openssl import PemKey
from daemon_client.secret import Secret


class ShelfKey(PemKey):
    """A key that tells that it was closed."""

    def __init__(self, private_key: rsa.RSAPrivateKey, where: str) -> None:
        super().__init__(private_key, where)
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


class Shelf(KeyModule):
    """Keys in this process's memory, by URIs: shelf:NAME.

    keys: those there are, each with its passphrase. opened: those that were opened, in that order.
    tries: how often one was tried to be opened.
    """

    alias = "shelf"
    has_uris = True

    keys: ClassVar[dict[str, tuple[rsa.RSAPrivateKey, bytes | None]]] = {}
    opened: ClassVar[list[ShelfKey]] = []
    tries: ClassVar[int] = 0

    def open(self, location: str, passphrase: Secret | None) -> ShelfKey:
        type(self).tries += 1
        if location not in self.keys:
            raise KeyOpenError(f"there is no {location}")
        private_key, expected = self.keys[location]
        if expected is not None and (passphrase is None or passphrase.octets != expected):
            raise WrongPassphraseError(f"the passphrase of {location} is wrong")
        key = ShelfKey(private_key, location)
        self.opened.append(key)
        return key


def install(directory: Path, alias: str, target: str) -> None:
    """What pip leaves of a package in its directory: the metadata with the entry point."""
    metadata = directory / f"{alias}_keys-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {alias}-keys\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{GROUP}]\n{alias} = {target}\n")


def installed_shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Shelf]:
    """The shelf, empty, and installed for the time of a test."""
    install(tmp_path, Shelf.alias, f"{Shelf.__module__}:{Shelf.__name__}")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(Shelf, "keys", {})
    monkeypatch.setattr(Shelf, "opened", [])
    monkeypatch.setattr(Shelf, "tries", 0)
    key_module.cache_clear()
    return Shelf
