"""Tokens in the user keyring: how ecryptfsd, ecryptfs-keyd and the kernel are told of a key."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from ecryptfs_cuse.wire.auth_token import PrivateKeyToken, build_private_key_token
from tests.client import PATIENCE
from tests.ecryptfsd.programs import require


def private_key_token(signature: str, alias: str, blob: bytes) -> bytes:
    """The token for a key of the key module ``alias``."""
    return build_private_key_token(PrivateKeyToken(signature, alias, blob))


@contextmanager
def in_user_keyring(signature: str, token: bytes) -> Iterator[None]:
    """Have the token in this user's keyring for the time of a block."""
    require("keyctl")
    serial = _keyctl("padd", "user", signature, "@u", payload=token).strip()
    try:
        # Where this process is killed, the key still goes away.
        _keyctl("timeout", serial, "600")
        yield
    finally:
        _keyctl("unlink", serial, "@u")


@contextmanager
def password_token_in_user_keyring(passphrase: str) -> Iterator[tuple[str, bytes]]:
    """Have ecryptfs-add-passphrase put a token there; its signature, and its octets.

    Two with the same passphrase at a time would be one.
    """
    require("ecryptfs-add-passphrase", "keyctl")
    done = subprocess.run(
        ["ecryptfs-add-passphrase"],
        input=passphrase,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    found = re.search(r"auth tok with sig \[([0-9a-f]{16})\]", done.stdout)
    assert found is not None, f"ecryptfs-add-passphrase names no token: {done.stdout}"
    serial = _keyctl("search", "@u", "user", found[1]).strip()
    try:
        _keyctl("timeout", serial, "600")
        # Only those may read it whose own keyrings lead to it.
        link_and_read = f"keyctl link @u @s && keyctl pipe {serial}"
        yield found[1], _keyctl_octets("session", "-", "sh", "-c", link_and_read)
    finally:
        _keyctl("unlink", serial, "@u")


def _keyctl(*arguments: str, payload: bytes = b"") -> str:
    return _keyctl_octets(*arguments, payload=payload).decode()


def _keyctl_octets(*arguments: str, payload: bytes = b"") -> bytes:
    done = subprocess.run(
        ["keyctl", *arguments], input=payload, capture_output=True, check=True, timeout=PATIENCE
    )
    return done.stdout
