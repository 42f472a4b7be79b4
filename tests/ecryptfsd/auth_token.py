"""struct ecryptfs_auth_tok, as a key in the user keyring: how ecryptfsd is given a private key.

    offset  size
    0       2       version, 0x0004
    2       2       token type: 1 private key
    4       4       flags
    8       588     session key, unused here
    596     32      reserved
    628     4       size of the key's identifier, 16
    632     4       size of the blob
    636     17      signature, NUL-terminated
    653     17      alias of the key module, NUL-terminated
    670             the blob: the key module's own

Native byte order. Whoever reads it adds the blob's size to the 740 octets of the whole struct, with
its union: the payload has that many octets, although the blob begins before.

Source: ecryptfs-utils, ecryptfs.h.
"""

import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.client import PATIENCE
from tests.ecryptfsd.programs import require

SIZE = 740
_HEAD = struct.Struct("=HHI588x32xII17s17s")
_VERSION = 0x0004
_PRIVATE_KEY = 1


def private_key_token(signature: str, alias: str, blob: bytes) -> bytes:
    """The token for a key of the key module ``alias``."""
    head = _HEAD.pack(
        _VERSION,
        _PRIVATE_KEY,
        0,
        len(signature),
        len(blob),
        signature.encode("ascii"),
        alias.encode("ascii"),
    )
    return (head + blob).ljust(SIZE + len(blob), b"\0")


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


def _keyctl(*arguments: str, payload: bytes = b"") -> str:
    done = subprocess.run(
        ["keyctl", *arguments], input=payload, capture_output=True, check=True, timeout=PATIENCE
    )
    return done.stdout.decode()
