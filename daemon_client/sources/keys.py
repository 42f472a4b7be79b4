"""Every key that the daemon answers with: those of its configuration, of the directory, of tokens.

Where a signature is in several places, the configuration's key is used, then the directory's, then
the keyring's.
"""

import contextlib
from collections.abc import Iterator
from typing import Self

from daemon_client.key import Key, KeyOpenError
from daemon_client.sources.config import Config
from daemon_client.sources.directory import KeyDirectory
from daemon_client.sources.reference import KeyReference
from daemon_client.sources.tokens import TokenKey, TokenKeys, user_tokens


class Keys:
    """What ``Daemon`` takes, made by ``load``. Keys that are named are open; tokens' not yet."""

    def __init__(self, opened: dict[KeyReference, Key], tokens: TokenKeys | None) -> None:
        self._opened = opened
        self._tokens = tokens
        self._by_signature: dict[str, Key] = {}
        for key in opened.values():
            self._by_signature.setdefault(key.signature, key)

    @classmethod
    def load(cls, config: Config, previous: Self | None = None) -> Self:
        """Open the keys that the configuration and the directory name.

        previous: keys to take over where their passphrases cannot be had again; what is left of it
        is for ``close_all_but``.

        Raises KeyOpenError, with one line for each key that cannot be opened, and opens none then.
        """
        kept = previous._opened if previous is not None else {}
        opened: dict[KeyReference, Key] = {}
        faults: dict[KeyReference, str] = {}
        for reference, signature in references(config):
            try:
                if reference.is_given_once and reference in kept:
                    opened[reference] = kept[reference]
                elif reference not in opened and reference not in faults:
                    opened[reference] = reference.unlock(signature)
            except KeyOpenError as error:
                faults[reference] = str(error)
        keys = cls(opened, TokenKeys() if config.keyring else None)
        if faults:
            keys.close_all_but(previous)
            raise KeyOpenError("\n".join(faults.values()))
        return keys

    def find(self, signature: str) -> Key | None:
        """The key of that signature. Raises KeyOpenError where its token cannot be used."""
        key = self._by_signature.get(signature)
        if key is None and self._tokens is not None:
            key = self._tokens.find(signature)
        return key

    def in_user_keyring(self) -> list[TokenKey]:
        """Those of the tokens that are in the user keyring at present. Raises KeyOpenError."""
        if self._tokens is None:
            return []
        found = [self._tokens.find(token.signature) for _, token in user_tokens()]
        return [key for key in found if key is not None]

    def __iter__(self) -> Iterator[Key]:
        """Those that are named."""
        return iter(self._by_signature.values())

    def close_all_but(self, others: Self | None) -> None:
        """Close the keys, but leave those that ``others`` has too."""
        kept = [] if others is None else list(others._opened.values())
        for key in self._opened.values():
            if not any(key is each for each in kept):
                with contextlib.suppress(Exception):  # whatever a key module does
                    key.close()
        if self._tokens is not None:
            self._tokens.close()


def references(config: Config) -> list[tuple[KeyReference, str | None]]:
    """Those that are named, and the signature that each has to have, where it says so.

    Raises KeyOpenError where the directory is not in order.
    """
    listed = KeyDirectory(config.key_directory).references()
    return [
        *((reference, None) for reference in config.keys),
        *((reference, signature) for signature, reference in listed.items()),
    ]
