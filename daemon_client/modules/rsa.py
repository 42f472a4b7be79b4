"""What RSA keys have in common, wherever the private key is.

To encrypt takes the public key alone, so it is done here and no key store is asked. Our modules
encrypt, and name keys, as ecryptfsd's openssl module does: a key may move from a file into a token
or a TPM, and the files that were made with it can still be read.
"""

import hashlib

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1

from daemon_client.key import Key, KeyOperationError


class RsaKey(Key):
    """An RSA key of which the public half is here; subclasses decrypt with the private one.

    bits: the size of the modulus.
    """

    def __init__(self, public_key: rsa.RSAPublicKey, store: str, where: str) -> None:
        self._public_key = public_key
        self._where = where
        self.signature = signature_of(public_key)
        self.store = store
        self.bits = public_key.key_size

    def encrypt(self, payload: bytes) -> bytes:
        """Encrypt at most bits / 8 - 42 octets. Raises KeyOperationError."""
        try:
            return self._public_key.encrypt(payload, oaep())
        except (ValueError, UnsupportedAlgorithm):
            raise KeyOperationError("the payload is too long for the key") from None

    def describe(self) -> str:
        """How large it is, and where."""
        return f"RSA, {self.bits} bits, {self._where}"


def oaep() -> padding.OAEP:
    """The padding: OAEP with SHA-1, MGF1 with SHA-1, and no label (PKCS #1, section 7.1)."""
    return padding.OAEP(padding.MGF1(SHA1()), SHA1(), label=None)  # noqa: S303  # the format's


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
