"""The key module openssl: RSA private keys in PEM files; a location is a file's path.

Blob, ciphertext and signature are those of ecryptfsd's openssl module, so that tokens and files
made with the one can be used with the other.
"""

import contextlib
import os
from pathlib import Path
from typing import cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from daemon_client.key import KeyModule, KeyOpenError, KeyOperationError, WrongPassphraseError
from daemon_client.modules.rsa import RsaKey, oaep
from daemon_client.secret import Secret

PEM_SIZE_MAX = 1 << 16
"""The most octets that a PEM file may have; a key of 16384 bits has 13000."""


class PemKey(RsaKey):
    """An RSA private key in this process's memory."""

    def __init__(self, private_key: rsa.RSAPrivateKey, where: str) -> None:
        super().__init__(private_key.public_key(), "openssl", where)
        self._private_key = private_key

    def decrypt(self, ciphertext: bytes) -> bytes:
        """Decrypt what ``encrypt`` has made. Raises KeyOperationError."""
        try:
            return self._private_key.decrypt(ciphertext, oaep())
        except (ValueError, UnsupportedAlgorithm):
            raise KeyOperationError("the ciphertext was not made with this key") from None


class OpenSsl(KeyModule):
    """PEM files: PKCS#1 and PKCS#8, plain and encrypted."""

    alias = "openssl"

    def open(self, location: str, passphrase: Secret | None) -> PemKey:
        """Read a PEM file. A passphrase that a plain one does not need is not looked at."""
        pem = _read(location)
        try:
            return PemKey(_load(location, pem, passphrase), location)
        finally:
            pem[:] = bytes(len(pem))

    def generate(self, location: str, passphrase: Secret | None, bits: int) -> None:
        """Write a new key into a new file, PKCS#8, encrypted if there is a passphrase."""
        try:
            private_key = rsa.generate_private_key(65537, bits)
        except ValueError as error:
            raise KeyOpenError(f"no key of {bits} bits can be made: {error}") from None
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase is not None:
            encryption = serialization.BestAvailableEncryption(bytes(passphrase.octets))
        pem = private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )
        write_new(location, pem)

    def absolute(self, location: str, base: Path) -> str:
        """A relative path is one below ``base``."""
        return str(base / os.path.expanduser(location))


def load_key(path: str | os.PathLike[str], passphrase: Secret | None = None) -> PemKey:
    """Read an RSA private key from a PEM file. Raises KeyOpenError, WrongPassphraseError."""
    return OpenSsl().open(os.fspath(path), passphrase)


def write_new(path: str, octets: bytes) -> None:
    """Write a private file that did not exist before, or nothing. Raises KeyOpenError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(octets)
                file.flush()
                os.fsync(descriptor)  # files are encrypted with it from now on
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise
    except FileExistsError:
        raise KeyOpenError(f"{path} exists already, and is left as it is") from None
    except OSError as error:
        raise KeyOpenError(f"cannot write {path}: {error.strerror}") from None


def _load(name: str, pem: bytearray, passphrase: Secret | None) -> rsa.RSAPrivateKey:
    password = passphrase.octets if passphrase and b"ENCRYPTED" in pem else None
    try:
        # A bytearray will do, and can be wiped; the library's type for passwords says bytes.
        private_key = serialization.load_pem_private_key(pem, cast(bytes, password))
    except TypeError:
        raise WrongPassphraseError(
            f"{name} is encrypted: say where its passphrase comes from, with --passphrase, or with "
            "passphrase = in its configuration"
        ) from None
    except UnsupportedAlgorithm:
        raise KeyOpenError(f"{name} holds a key of a kind that is not supported") from None
    except ValueError:
        if password is not None:
            raise WrongPassphraseError(
                f"{name} cannot be decrypted: the passphrase is wrong, or the file is damaged"
            ) from None
        raise KeyOpenError(
            f"{name} holds no private key in PEM form, which starts with one of "
            "'-----BEGIN PRIVATE KEY-----', '-----BEGIN ENCRYPTED PRIVATE KEY-----', "
            "'-----BEGIN RSA PRIVATE KEY-----'"
        ) from None
    if not isinstance(private_key, rsa.RSAPrivateKey):
        raise KeyOpenError(f"{name} holds a private key that is not RSA")
    return private_key


def _read(name: str) -> bytearray:
    """The file's octets, in a buffer that can be wiped."""
    pem = bytearray(PEM_SIZE_MAX + 1)
    try:
        with open(name, "rb", buffering=0) as file:
            size = file.readinto(pem) or 0
    except FileNotFoundError:
        raise KeyOpenError(f"the key file {name} does not exist") from None
    except OSError as error:
        raise KeyOpenError(f"cannot read {name}: {error.strerror}") from None
    if size > PEM_SIZE_MAX:
        pem[:] = bytes(len(pem))
        raise KeyOpenError(f"{name} is too long to be a key")
    del pem[size:]
    return pem
