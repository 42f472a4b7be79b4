"""Keys by tokens in the keyring, as ecryptfs-manager and mount.ecryptfs put them there.

A token is looked up for each request, so one that is added counts from then on, and one that is
removed no longer. The key behind it is opened once, and again when the token has changed.
"""

import contextlib
import hashlib
import threading
from dataclasses import replace

from daemon_client.key import (
    Key,
    KeyOpenError,
    KeyOperationError,
    WrongPassphraseError,
    key_module,
    open_key,
)
from daemon_client.secret import Secret
from daemon_client.sources import keyring
from daemon_client.sources.keyring import KeyringError
from daemon_client.sources.reference import KeyReference
from ecryptfs_cuse.wire.auth_token import (
    PrivateKeyToken,
    build_private_key_token,
    parse_private_key_token,
)
from ecryptfs_cuse.wire.errors import BuildError, ParseError


class TokenKey(Key):
    """The key of a token, opened when it is first used, which may take a while."""

    def __init__(self, token: PrivateKeyToken) -> None:
        self._token = token
        self._lock = threading.Lock()
        self._key: Key | None = None
        self._refusal: str | None = None
        self._is_closed = False
        self.signature = token.signature

    @property
    def store(self) -> str:  # type: ignore[override]  # until it is open, the module stands for it
        """The key's, once it is open."""
        key = self._key
        return key.store if key else self._token.alias

    def encrypt(self, payload: bytes) -> bytes:
        """Raises KeyOperationError also where the key cannot be opened."""
        return self._usable().encrypt(payload)

    def decrypt(self, ciphertext: bytes) -> bytes:
        """Raises KeyOperationError also where the key cannot be opened."""
        return self._usable().decrypt(ciphertext)

    def describe(self) -> str:
        """What can be said without opening it."""
        key = self._key
        return key.describe() if key else f"a token for {self._token.alias}"

    def open(self) -> Key:
        """The key itself. Raises KeyOpenError."""
        with self._lock:
            if self._is_closed:
                raise KeyOpenError(f"the token {self.signature!r} has been removed or changed")
            if self._refusal is not None:
                raise WrongPassphraseError(self._refusal)
            if self._key is None:
                try:
                    self._key = _open(self._token)
                except WrongPassphraseError as error:
                    # Once more might lock the key's store for good.
                    self._refusal = str(error)
                    raise
                finally:
                    if self._key is not None or self._refusal is not None:
                        # It is not needed again, and may carry a passphrase.
                        self._token = replace(self._token, blob=b"")
            return self._key

    def close(self) -> None:
        """Close the key behind it; waits for one that is being opened."""
        with self._lock:
            self._is_closed = True
            key, self._key = self._key, None
        if key is not None:
            key.close()

    def _usable(self) -> Key:
        try:
            return self.open()
        except KeyOpenError as error:
            raise KeyOperationError(str(error)) from None


class TokenKeys:
    """The keys of all tokens that this process can find in its keyrings."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[bytes, TokenKey]] = {}

    def find(self, signature: str) -> TokenKey | None:
        """The key of the token with that signature. Raises KeyOpenError where it cannot be read."""
        try:
            serial = keyring.find(signature)
            payload = None if serial is None else keyring.read(serial)
        except KeyringError as error:
            raise KeyOpenError(str(error)) from None
        if payload is None:
            self._forget(signature)
            return None
        try:
            return self._key(signature, payload)
        finally:
            payload[:] = bytes(len(payload))

    def _key(self, signature: str, payload: bytearray) -> TokenKey:
        # Not the payload itself: it may carry a passphrase.
        digest = hashlib.sha256(payload).digest()
        known = self._known.get(signature)
        if known is not None and known[0] == digest:
            return known[1]
        self._forget(signature)
        key = TokenKey(parse_token(signature, payload))
        self._known[signature] = digest, key
        return key

    def _forget(self, signature: str) -> None:
        known = self._known.pop(signature, None)
        if known is not None:
            # In a thread: its store may take a while, and who looks for a key must not wait.
            threading.Thread(target=known[1].close, daemon=True).start()

    def close(self) -> None:
        """Close them all."""
        for _, key in self._known.values():
            key.close()
        self._known.clear()


def parse_token(signature: str, payload: bytes | bytearray) -> PrivateKeyToken:
    """Read the token that the keyring has under ``signature``. Raises KeyOpenError."""
    try:
        token = parse_private_key_token(bytes(payload))
    except ParseError as error:
        raise KeyOpenError(f"the keyring's token {signature!r}: {error}") from None
    if token.signature != signature:
        raise KeyOpenError(
            f"the keyring's token {signature!r} says it is {token.signature!r} inside"
        )
    return token


def add_token(reference: KeyReference, signature: str, passphrase: Secret | None) -> None:
    """Put a token for a key into the user keyring; its passphrase goes into the token.

    Raises KeyOpenError.
    """
    blob = reference.key_module().build_blob(reference.location, passphrase)
    token = PrivateKeyToken(signature, reference.module, blob)
    try:
        keyring.add(signature, build_private_key_token(token))
    except (KeyringError, BuildError) as error:
        raise KeyOpenError(str(error)) from None


def user_tokens() -> list[tuple[keyring.Entry, PrivateKeyToken]]:
    """The tokens of private keys in the user keyring; what cannot be read as one is left out.

    Raises KeyOpenError where there is no keyring.
    """
    found = []
    try:
        for entry in keyring.user_keys():
            with contextlib.suppress(KeyOpenError, KeyringError):
                token = parse_token(entry.description, keyring.read(entry.serial))
                found.append((entry, token))
    except KeyringError as error:
        raise KeyOpenError(f"{error}; --no-keyring does without") from None
    return found


def _open(token: PrivateKeyToken) -> Key:
    module = key_module(token.alias)
    location, passphrase = module.read_blob(token.blob)
    try:
        return open_key(module, location, passphrase, token.signature)
    finally:
        if passphrase is not None:
            passphrase.wipe()
