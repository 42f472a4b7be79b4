"""What keys there are, for people: where each is named, and what opens it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from daemon_client.key import Key, KeyOpenError, key_module
from daemon_client.sources import keyring
from daemon_client.sources.config import Config
from daemon_client.sources.directory import KeyDirectory
from daemon_client.sources.keyring import KeyringError
from daemon_client.sources.keys import references
from daemon_client.sources.reference import KeyReference
from daemon_client.sources.tokens import TokenKey, user_tokens
from ecryptfs_cuse.wire.auth_token import PrivateKeyToken


class Place(StrEnum):
    """Where a key is named, in the order in which the daemon looks."""

    CONFIGURATION = "configuration"
    DIRECTORY = "directory"
    KEYRING = "keyring"


@dataclass(frozen=True, slots=True)
class Listed:
    """A key that is named somewhere.

    signature: None where only the open key tells. passphrase: where it comes from; None without.
    """

    place: Place
    signature: str | None
    module: str
    location: str
    passphrase: str | None
    open: Callable[[], Key] = field(repr=False)


def listed_keys(config: Config) -> list[Listed]:
    """All keys that a daemon with this configuration would use. Raises KeyOpenError."""
    found = [_named(reference, signature) for reference, signature in references(config)]
    if config.keyring:
        found += [_token(token) for _, token in user_tokens()]
    return found


def remove_listed(config: Config, signature: str) -> list[Place]:
    """Take a key out of the directory and the keyring; from where it was. Raises KeyOpenError."""
    tokens = user_tokens() if config.keyring else []  # before anything is done
    places = []
    if KeyDirectory(config.key_directory).remove(signature):
        places.append(Place.DIRECTORY)
    for entry, _ in tokens:
        if entry.description == signature:
            try:
                keyring.remove(entry.serial)
            except KeyringError as error:
                raise KeyOpenError(str(error)) from None
            places.append(Place.KEYRING)
    return places


def _named(reference: KeyReference, signature: str | None) -> Listed:
    return Listed(
        # Only the directory knows signatures.
        Place.CONFIGURATION if signature is None else Place.DIRECTORY,
        signature,
        reference.module,
        reference.location,
        reference.passphrase,
        lambda: reference.unlock(signature),
    )


def _token(token: PrivateKeyToken) -> Listed:
    try:
        location, passphrase = key_module(token.alias).read_blob(token.blob)
    except KeyOpenError:
        location, passphrase = "unknown", None
    source = None
    if passphrase is not None:
        source = "in the token"
        passphrase.wipe()
    return Listed(
        Place.KEYRING,
        token.signature,
        token.alias,
        location,
        source,
        lambda: TokenKey(token).open(),
    )
