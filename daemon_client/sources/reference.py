"""What says which key is meant: a key module, a location, and where the passphrase comes from.

On a command line that is ``[MODULE:]LOCATION``, openssl without a module. In TOML it is

    module = "openssl"                      this one without it
    location = "key.pem"
    passphrase = "file:passphrase.txt"      where one is needed

This module reads no configuration and no directory: it is what both name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from daemon_client.key import (
    Key,
    KeyModule,
    KeyOpenError,
    WrongPassphraseError,
    key_module,
    key_module_names,
    open_key,
)
from daemon_client.secret import (
    PROMPT,
    Secret,
    SecretError,
    absolute_source,
    check_source,
    read_secret,
)

DEFAULT_MODULE = "openssl"
_FIELDS = ("module", "location", "passphrase")


@dataclass(frozen=True, slots=True)
class KeyReference:
    """module: the key module's name. location: the key's, for that module. passphrase: a source."""

    module: str
    location: str
    passphrase: str | None = None

    def __str__(self) -> str:
        return f"{self.module} {self.location}"

    @property
    def is_given_once(self) -> bool:
        """Whether the passphrase cannot simply be had again."""
        return self.is_typed or self.is_from_descriptor

    @property
    def is_typed(self) -> bool:
        """Whether a person types the passphrase on the terminal."""
        return self.passphrase == PROMPT

    @property
    def is_from_descriptor(self) -> bool:
        """Whether the passphrase comes from a descriptor of this process."""
        return (self.passphrase or "").startswith("fd:")

    def key_module(self) -> KeyModule:
        """Raises KeyOpenError where it is not installed."""
        return key_module(self.module)

    def open(self, passphrase: Secret | None, signature: str | None = None) -> Key:
        """Open the key with its passphrase, which the caller has got; see ``open_key``."""
        return open_key(self.key_module(), self.location, passphrase, signature)

    def unlock(self, signature: str | None = None) -> Key:
        """Get the passphrase, and open the key; see ``open_key``. Raises KeyOpenError."""
        passphrase = self.secret()
        try:
            return self.open(passphrase, signature)
        finally:
            if passphrase is not None:
                passphrase.wipe()

    def secret(self) -> Secret | None:
        """Get the passphrase. Raises WrongPassphraseError where its source has none."""
        try:
            return None if self.passphrase is None else read_secret(self.passphrase, str(self))
        except SecretError as error:
            raise WrongPassphraseError(f"{self}: {error}") from None


def from_text(text: str, passphrase: str | None = None) -> KeyReference:
    """What a command line says; relative to the working directory. Raises KeyOpenError."""
    module, colon, location = text.partition(":")
    if not colon or module not in key_module_names():
        module, location = DEFAULT_MODULE, text
    elif key_module(module).has_uris:
        location = text
    return _checked(KeyReference(module, location, passphrase), Path.cwd())


def from_table(table: Mapping[str, object], base: Path) -> KeyReference:
    """What a TOML table says; relative to ``base``. Raises KeyOpenError."""
    unknown = sorted(set(table) - set(_FIELDS))
    if unknown:
        raise KeyOpenError(f"a key has no {unknown[0]!r}, but: {', '.join(_FIELDS)}")
    for name, value in table.items():
        if not isinstance(value, str) or not value or "\0" in value:
            raise KeyOpenError(f"{name} = is followed by a text in quotes, free of NULs")
    if "location" not in table:
        raise KeyOpenError("a key needs location =")
    values = {"module": DEFAULT_MODULE, **{name: str(value) for name, value in table.items()}}
    return _checked(KeyReference(**values), base)


def _checked(reference: KeyReference, base: Path) -> KeyReference:
    passphrase = reference.passphrase
    if passphrase is not None:
        try:
            check_source(passphrase)
        except SecretError as error:
            raise KeyOpenError(str(error)) from None
        passphrase = absolute_source(passphrase, base)
    location = reference.key_module().absolute(reference.location, base)
    for text in (location, passphrase or ""):
        if not _is_utf8(text):
            raise KeyOpenError(f"{text!r} is not UTF-8, as lists of keys need it")
    return replace(reference, location=location, passphrase=passphrase)


def _is_utf8(text: str) -> bool:
    """A file's name need not be; what is not is in the text as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
