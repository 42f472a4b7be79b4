"""A directory of keys, for use with no keyring: one file for each, SIGNATURE.toml.

    ~/.config/ecryptfs-keyd/keys/13a050d7dceb34a3.toml
        module = "openssl"
        location = "/home/ada/key.pem"
        passphrase = "file:/home/ada/passphrase"

The files say where keys are; no key and no passphrase is in them.
"""

import os
import re
import tomllib
from pathlib import Path

import tomli_w

from daemon_client.key import KeyOpenError
from daemon_client.sources.reference import KeyReference, from_table

SIGNATURE = re.compile("[0-9a-f]{16}")


class KeyDirectory:
    """The directory at ``path``, which need not exist."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def references(self) -> dict[str, KeyReference]:
        """All of them, by signature. Raises KeyOpenError."""
        try:
            names = sorted(os.listdir(self.path))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise KeyOpenError(f"cannot read {self.path}: {error.strerror}") from None
        files = [self.path / name for name in names if name.endswith(".toml")]
        return {file.stem: self._read(file) for file in files}

    def _read(self, file: Path) -> KeyReference:
        if not SIGNATURE.fullmatch(file.stem):
            raise KeyOpenError(f"{file} is not named by a signature, 16 hexadecimal digits")
        try:
            with file.open("rb") as opened:
                return from_table(tomllib.load(opened), self.path)
        except OSError as error:
            raise KeyOpenError(f"cannot read {file}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyOpenError) as error:
            raise KeyOpenError(f"{file}: {error}") from None

    def add(self, signature: str, reference: KeyReference) -> Path:
        """Write a file for a key, in place of an older one. Raises KeyOpenError."""
        file = self._file(signature)
        table = {"module": reference.module, "location": reference.location}
        if reference.passphrase is not None:
            table["passphrase"] = reference.passphrase
        new = file.with_suffix(".new")
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            new.write_text(tomli_w.dumps(table), encoding="utf-8")
            os.replace(new, file)
        except OSError as error:
            raise KeyOpenError(f"cannot write {file}: {error.strerror}") from None
        return file

    def remove(self, signature: str) -> bool:
        """Delete a key's file; whether there was one. The key is left alone.

        Raises KeyOpenError.
        """
        file = self._file(signature)
        try:
            file.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise KeyOpenError(f"cannot remove {file}: {error.strerror}") from None
        return True

    def _file(self, signature: str) -> Path:
        return self.path / f"{signature}.toml"
