"""Keys for eCryptfs mounts: what tokens say of them."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

from daemon_client.modules.openssl import OpenSsl
from daemon_client.secret import Secret
from tests.ecryptfsd.auth_token import in_user_keyring, private_key_token

BITS = 2048


@dataclass(frozen=True, slots=True)
class ServedKey:
    """A key that the daemon can open, by the key module ``alias``.

    blob: what the token carries to open it by.
    """

    signature: str
    alias: str
    location: str
    blob: bytes = field(repr=False)

    def token(self) -> AbstractContextManager[None]:
        """Have its token in the user keyring for the time of a block."""
        return in_user_keyring(
            self.signature, private_key_token(self.signature, self.alias, self.blob)
        )


def new_pem(path: Path, passphrase: bytes | None = None) -> ServedKey:
    """A new key in a PEM file, which is encrypted if there is a passphrase."""
    module = OpenSsl()
    secret = None if passphrase is None else Secret(passphrase)
    module.generate(str(path), secret, BITS)
    return ServedKey(
        module.open(str(path), secret).signature,
        module.alias,
        str(path),
        module.build_blob(str(path), secret),
    )


def moved(key: ServedKey, alias: str, location: str, passphrase: bytes) -> ServedKey:
    """The same key where another key module has it."""
    # All our modules have the same form of blob.
    blob = OpenSsl().build_blob(location, Secret(passphrase))
    return replace(key, alias=alias, location=location, blob=blob)
