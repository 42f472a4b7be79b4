"""The kernel's keyrings, by libkeyutils: find, read, add and remove keys of type "user".

Keys are added to the user keyring, as ecryptfs-utils does. They are found there and in the session
keyring. A program may read a key there only if one of its own keyrings leads to it, for which
ecryptfsd needs "keyctl link @u @s"; here it is linked to this process's own keyring, which nobody
else sees.

Source: keyctl(2), request_key(2), keyrings(7).
"""

import ctypes
import errno
import os
from dataclasses import dataclass
from functools import cache

_PROCESS_KEYRING = -2
_USER_KEYRING = -4
_USER_TYPE = b"user"
_ABSENT = (errno.ENOKEY, errno.EKEYEXPIRED, errno.EKEYREVOKED)
_SERIAL_SIZE = 4
_ABOUT_MAX = 2 * 4096  # a description has up to 4095 octets; other things stand before it


class KeyringError(Exception):
    """The keyring cannot be used so; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key in a keyring. serial: the kernel's number for it. description: its name."""

    serial: int
    description: str


def find(description: str) -> int | None:
    """The serial of the key of that name; None where there is none. Raises KeyringError."""
    # No information for a callout: nobody is to be asked to make the key.
    serial: int = _library().request_key(_USER_TYPE, description.encode(), None, 0)
    if serial < 0 and ctypes.get_errno() in _ABSENT:
        return None
    return _checked(serial, f"search the keyrings for {description!r}")


def read(serial: int) -> bytearray:
    """A key's payload, in a buffer that can be wiped. Raises KeyringError."""
    payload = bytearray()
    while True:
        size = _read_into(serial, payload)
        if size <= len(payload):
            del payload[size:]
            return payload
        payload = bytearray(size)


def add(description: str, payload: bytes) -> int:
    """Put a key into the user keyring, in place of one of that name. Raises KeyringError."""
    serial: int = _library().add_key(
        _USER_TYPE,
        description.encode(),
        payload,
        ctypes.c_size_t(len(payload)),
        _USER_KEYRING,
    )
    return _checked(serial, f"add {description!r} to the user keyring")


def remove(serial: int) -> None:
    """Take a key out of the user keyring. Raises KeyringError."""
    _checked(_library().keyctl_unlink(serial, _USER_KEYRING), "remove from the user keyring")


def user_keys() -> list[Entry]:
    """What the user keyring holds, of type "user". Raises KeyringError."""
    serials = read(_USER_KEYRING)
    found = []
    for place in range(0, len(serials), _SERIAL_SIZE):
        serial = ctypes.c_int32.from_buffer(serials, place).value
        about = ctypes.create_string_buffer(_ABOUT_MAX)
        size = _library().keyctl_describe(serial, about, ctypes.c_size_t(len(about)))
        if size < 0:  # it has gone meanwhile, or is not to be seen
            continue
        # type;uid;gid;permissions;description
        kind, _, _, _, description = about.value.split(b";", 4)
        if kind == _USER_TYPE:
            found.append(Entry(serial, description.decode(errors="replace")))
    return found


def _read_into(serial: int, payload: bytearray) -> int:
    """Read what has room; how many octets there are."""
    room = (ctypes.c_char * len(payload)).from_buffer(payload)
    size: int = _library().keyctl_read(serial, room, ctypes.c_size_t(len(payload)))
    return _checked(size, f"read key {serial}")


@cache
def _open() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libkeyutils.so.1", use_errno=True)
    except OSError:
        raise KeyringError(
            "the keyrings need libkeyutils.so.1: install the package libkeyutils1"
        ) from None
    for name in ("keyctl_read", "keyctl_describe", "keyctl_unlink", "keyctl_link"):
        getattr(library, name).restype = ctypes.c_long
    return library


def _library() -> ctypes.CDLL:
    library = _open()
    # A process's keyring is made by its first use. Threads that run already do not get it, so this
    # is not done once only.
    _checked(
        library.keyctl_link(_USER_KEYRING, _PROCESS_KEYRING), "link the user keyring to the process"
    )
    return library


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        advice = {
            errno.ENOSYS: ": this kernel has no keyrings",
            errno.EDQUOT: ": the quota is used up, see keyrings(7)",
        }.get(number, "")
        raise KeyringError(f"cannot {what}: {os.strerror(number)}{advice}")
    return result
