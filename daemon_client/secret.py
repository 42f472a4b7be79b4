"""Passphrases: where they come from, and a holder that does not show them.

A source is a line of text, as with OpenSSL's -passin, but never the passphrase itself: command
lines and configuration files are read by others.

    file:PATH         the first line of a file
    fd:NUMBER         the first line that comes from an open descriptor
    askpass:PROGRAM   what a program prints, such as ssh-askpass or systemd-ask-password
    credential:NAME   a systemd credential (LoadCredential= and its kin)
    prompt            typed on the terminal
"""

import contextlib
import getpass
import os
import re
import shlex
import subprocess
import warnings
from pathlib import Path

SIZE_MAX = 4096
"""The most octets of a passphrase."""

PROMPT = "prompt"
SOURCES = "file:PATH, fd:NUMBER, askpass:PROGRAM, credential:NAME, prompt"


class SecretError(Exception):
    """A passphrase cannot be had; the message says why and what to do."""


class Secret:
    """Octets that are not shown and can be wiped."""

    __slots__ = ("octets",)

    def __init__(self, octets: bytes | bytearray | memoryview) -> None:
        self.octets = bytearray(octets)

    def __repr__(self) -> str:
        return "Secret(...)"

    def copy(self) -> "Secret":
        """Another one, to be wiped on its own."""
        return Secret(self.octets)

    def wipe(self) -> None:
        """Overwrite it with zeros, and empty it."""
        self.octets[:] = bytes(len(self.octets))
        self.octets.clear()


def check_source(source: str) -> None:
    """Whether a source can be understood; nothing is read. Raises SecretError."""
    scheme, colon, rest = source.partition(":")
    if source == PROMPT:
        return
    if scheme in ("pass", "env"):
        raise SecretError(f"a passphrase is not given by {scheme}: but by one of: {SOURCES}")
    if scheme not in _READERS or not colon or not rest:
        raise SecretError(f"{_shown(source)} is no source of a passphrase, which are: {SOURCES}")
    if scheme == "fd" and not re.fullmatch("[0-9]{1,9}", rest):
        raise SecretError("fd: is followed by the number of an open descriptor")


def absolute_source(source: str, base: Path) -> str:
    """A source that means the same in every working directory; ``base`` is where it was written."""
    scheme, _, path = source.partition(":")
    return f"file:{base / os.path.expanduser(path)}" if scheme == "file" else source


def read_secret(source: str, what: str) -> Secret:
    """Get a passphrase. ``what`` it is for is shown to the person asked. Raises SecretError."""
    check_source(source)
    scheme, _, rest = source.partition(":")
    octets = _prompted(what) if source == PROMPT else _READERS[scheme](rest, what)
    try:
        with memoryview(octets) as view:
            size = octets.find(b"\n") if b"\n" in octets else len(octets)
            if size > SIZE_MAX:
                raise SecretError(f"the passphrase from {scheme}: has more than {SIZE_MAX} octets")
            if not size:
                raise SecretError(f"the passphrase from {scheme}: is empty")
            return Secret(view[:size])
    finally:
        octets[:] = bytes(len(octets))


def _from_file(path: str, what: str) -> bytearray:
    try:
        with open(os.path.expanduser(path), "rb", buffering=0) as file:
            return _read(file.fileno())
    except OSError as error:
        raise SecretError(f"cannot read the passphrase in {path}: {error.strerror}") from None


def _from_descriptor(number: str, what: str) -> bytearray:
    descriptor = int(number)
    try:
        octets = _read(descriptor)
    except OSError as error:
        raise SecretError(
            f"cannot read the passphrase from descriptor {number}: {error.strerror}"
        ) from None
    # What can be rewound can be read once more, when keys are reloaded. A pipe cannot.
    with contextlib.suppress(OSError):
        os.lseek(descriptor, 0, os.SEEK_SET)
    return octets


def _from_program(command: str, what: str) -> bytearray:
    try:
        done = subprocess.run(
            [*shlex.split(command), f"Passphrase for {what}:"],
            stdout=subprocess.PIPE,
            check=False,
        )
    except (OSError, ValueError) as error:
        raise SecretError(f"cannot run {command}: {error}") from None
    if done.returncode != 0:
        raise SecretError(f"{command} gave no passphrase: it ended with {done.returncode}")
    return bytearray(done.stdout)


def _from_credential(name: str, what: str) -> bytearray:
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if directory is None:
        raise SecretError(
            f"there is no credential {name}: $CREDENTIALS_DIRECTORY is not set, "
            f"which systemd does for units with LoadCredential={name}:PATH"
        )
    if "/" in name:
        raise SecretError(f"a credential's name is no path: {name}")
    return _from_file(str(Path(directory, name)), what)


def _prompted(what: str) -> bytearray:
    try:
        with warnings.catch_warnings():
            # Otherwise it reads standard input where there is no terminal.
            warnings.simplefilter("error", getpass.GetPassWarning)
            return bytearray(getpass.getpass(f"Passphrase for {what}: ").encode())
    except (EOFError, OSError, getpass.GetPassWarning):
        raise SecretError("there is no terminal to ask for the passphrase on") from None
    except UnicodeError:
        raise SecretError(
            "the passphrase that was typed is not in the terminal's encoding"
        ) from None


_READERS = {
    "file": _from_file,
    "fd": _from_descriptor,
    "askpass": _from_program,
    "credential": _from_credential,
}


def _read(descriptor: int) -> bytearray:
    octets = bytearray(SIZE_MAX + 1)
    size = 0
    with memoryview(octets) as view:
        while size < len(octets) and (count := os.readv(descriptor, [view[size:]])):
            size += count
    del octets[size:]
    return octets


def _shown(source: str) -> str:
    """Only what comes before the colon: the rest may be a passphrase after all."""
    scheme, colon, _ = source.partition(":")
    return f"'{scheme}:...'" if colon else "what was given"
