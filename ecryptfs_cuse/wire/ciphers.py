"""The codes of the ciphers that eCryptfs knows (RFC 2440, section 9.2, and two of its own).

Source: crypto.c, ecryptfs_cipher_code_str_map and ecryptfs_code_for_cipher_string.
"""

from ecryptfs_cuse.wire.errors import BuildError

CIPHER_CODES = {
    "des3_ede": 2,
    "cast5": 3,
    "blowfish": 4,
    "aes": 7,
    "twofish": 10,
    "cast6": 11,
}

_AES_BY_KEY_SIZE = {16: 7, 24: 8, 32: 9}

KNOWN_CODES = frozenset(CIPHER_CODES.values()) | frozenset(_AES_BY_KEY_SIZE.values())


def cipher_code(cipher: str, key_size: int) -> int:
    """The code for a cipher's name and a key of ``key_size`` octets.

    Raises BuildError for an unknown cipher and for an AES key that is not 16, 24 or 32 octets.
    """
    if cipher not in CIPHER_CODES:
        raise BuildError(f"eCryptfs knows no cipher {cipher!r}: {', '.join(CIPHER_CODES)}")
    if cipher == "aes":
        if key_size not in _AES_BY_KEY_SIZE:
            raise BuildError(f"an AES key has 16, 24 or 32 octets, not {key_size}")
        return _AES_BY_KEY_SIZE[key_size]
    return CIPHER_CODES[cipher]
