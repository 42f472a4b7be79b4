"""RSA private keys: from PEM files, named by their signature, used with OAEP.

Keys and ciphertexts are those of ecryptfsd's openssl key module, so that files made with the one
can be opened with the other.
"""

import hashlib
import os

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import load_pem_private_key

PEM_SIZE_MAX = 1 << 16
"""The most octets that a PEM file may have; a key of 16384 bits has 13000."""


class KeyFileError(Exception):
    """A PEM file that holds no key for us; the message says why and what to do."""


class KeyOperationError(Exception):
    """The key cannot encrypt or decrypt these octets. The message tells nothing of them."""


class RsaKey:
    """An RSA private key. Its text form shows the signature and the size, never the key.

    signature: 16 lower case hexadecimal digits, by which eCryptfs asks for the key.
    bits: the size of the modulus.
    """

    def __init__(self, private_key: rsa.RSAPrivateKey) -> None:
        self._private_key = private_key
        self._public_key = private_key.public_key()
        self.signature = signature_of(self._public_key)
        self.bits = private_key.key_size

    def __repr__(self) -> str:
        return f"RsaKey(signature={self.signature!r}, bits={self.bits})"

    def encrypt(self, payload: bytes) -> bytes:
        """Encrypt at most bits / 8 - 42 octets. Raises KeyOperationError."""
        try:
            return self._public_key.encrypt(payload, _oaep())
        except (ValueError, UnsupportedAlgorithm):
            raise KeyOperationError("the payload is too long for the key") from None

    def decrypt(self, ciphertext: bytes) -> bytes:
        """Decrypt what ``encrypt`` has made. Raises KeyOperationError."""
        try:
            return self._private_key.decrypt(ciphertext, _oaep())
        except (ValueError, UnsupportedAlgorithm):
            raise KeyOperationError("the ciphertext was not made with this key") from None


def load_key(path: str | os.PathLike[str]) -> RsaKey:
    """Read an RSA private key from a PEM file, PKCS#1 or PKCS#8. Raises KeyFileError."""
    name = os.fspath(path)
    pem = _read(name)
    try:
        private_key = load_pem_private_key(pem, password=None)
    except TypeError:
        raise KeyFileError(
            f"{name} is encrypted: decrypt it with 'openssl pkey -in {name} -out NEW.pem'"
        ) from None
    except UnsupportedAlgorithm:
        raise KeyFileError(f"{name} holds a key of a kind that is not supported") from None
    except ValueError:
        raise KeyFileError(
            f"{name} holds no private key in PEM form: it starts with "
            "'-----BEGIN PRIVATE KEY-----' or '-----BEGIN RSA PRIVATE KEY-----'"
        ) from None
    finally:
        pem[:] = bytes(len(pem))
    if not isinstance(private_key, rsa.RSAPrivateKey):
        raise KeyFileError(f"{name} holds a private key that is not RSA")
    return RsaKey(private_key)


def signature_of(public_key: rsa.RSAPublicKey) -> str:
    """The name of a key, 16 lower case hexadecimal digits.

    They are the first eight octets of the SHA-1 digest of

        99 | u16 length of the rest | 04 | 00000000 | 02 | u16 bits of n | n | u16 bits of e | e

    all big endian: an OpenPGP key fingerprint (RFC 2440, section 11.2) of a key made at time 0.

    Source: ecryptfs-utils, ecryptfs_key_mod_openssl.c, ecryptfs_openssl_generate_signature.
    """
    numbers = public_key.public_numbers()
    body = b"\x04" + bytes(4) + b"\x02" + _integer(numbers.n) + _integer(numbers.e)
    packet = b"\x99" + len(body).to_bytes(2, "big") + body
    return hashlib.sha1(packet, usedforsecurity=False).hexdigest()[:16]


def _integer(value: int) -> bytes:
    bits = value.bit_length()
    return bits.to_bytes(2, "big") + value.to_bytes((bits + 7) // 8, "big")


def _oaep() -> padding.OAEP:
    return padding.OAEP(padding.MGF1(SHA1()), SHA1(), label=None)  # noqa: S303  # the format's


def _read(name: str) -> bytearray:
    """The file's octets, in a buffer that can be wiped."""
    pem = bytearray(PEM_SIZE_MAX + 1)
    try:
        with open(name, "rb", buffering=0) as file:
            size = file.readinto(pem) or 0
    except FileNotFoundError:
        raise KeyFileError(f"the key file {name} does not exist") from None
    except OSError as error:
        raise KeyFileError(f"cannot read {name}: {error.strerror}") from None
    if size > PEM_SIZE_MAX:
        pem[:] = bytes(len(pem))
        raise KeyFileError(f"{name} is too long to be a key")
    del pem[size:]
    return pem
