"""The authentication token: how a key is kept in a keyring, for key daemons and for the kernel.

    struct ecryptfs_auth_tok {              /* packed, native byte order; 740 octets */
        u16  version;                       /* 0x0004 */
        u16  token_type;                    /* 0 password, 1 private key */
        u32  flags;
        u8   session_key[588];              /* the kernel's own; zeros here */
        u8   reserved[32];
        union {                             /* at 628; 112 octets, the password being the larger */
            struct ecryptfs_private_key {
                u32  key_size;              /* 16 */
                u32  data_len;              /* octets of data */
                char signature[17];         /* 16 characters and a NUL */
                char key_mod_alias[17];     /* which key module, NUL-terminated */
                u8   data[];                /* at 670: the key module's own, its "blob" */
            };
            struct ecryptfs_password { ... };
        };
    };

A token is the payload of a key of type "user" whose description is the signature. Its octets are as
many as the struct has and the blob has, together, although the blob begins inside the struct:
ecryptfsd writes beyond its memory if they are fewer.

    >>> token = PrivateKeyToken("13a050d7dceb34a3", "openssl", b"...")
    >>> parse_private_key_token(build_private_key_token(token)) == token
    True

Source: ecryptfs-utils, ecryptfs.h, struct ecryptfs_auth_tok; keystore.c, ecryptfs_verify_auth_tok.
"""

from dataclasses import dataclass, field
from typing import Any

from construct import Bytes, Int16un, Int32un, Padding, Struct

from ecryptfs_cuse.wire.errors import BuildError, ParseError
from ecryptfs_cuse.wire.tags import SIGNATURE_SIZE

SIZE = 740
"""Octets of the struct with its union."""

ALIAS_MAX = 16
"""The most characters that the name of a key module may have (ECRYPTFS_KEY_MOD_ALIAS)."""

BLOB_MAX = 32767 - SIZE
"""The most octets of a blob: a key of type "user" holds 32767 (security/keys/user_defined.c)."""

_BLOB_OFFSET = 670
_VERSION = 0x0004
_PASSWORD, _PRIVATE_KEY = 0, 1

_HEAD = Struct(
    "version" / Int16un,
    "token_type" / Int16un,
    "flags" / Int32un,
    Padding(588 + 32),
    "key_size" / Int32un,
    "data_len" / Int32un,
    "signature" / Bytes(SIGNATURE_SIZE + 1),
    "alias" / Bytes(ALIAS_MAX + 1),
).compile()


class PasswordTokenError(ParseError):
    """The token is of the other type: a passphrase, which the kernel uses without a daemon."""


@dataclass(frozen=True, slots=True)
class PrivateKeyToken:
    """A key that a key module opens.

    signature: which key it is, 16 ASCII characters. alias: the key module, 1 to 16 ASCII
    characters. blob: what that module needs to open the key, secrets among it.
    """

    signature: str
    alias: str
    blob: bytes = field(repr=False)


def parse_private_key_token(payload: bytes) -> PrivateKeyToken:
    """Read a token.

    Raises PasswordTokenError for a passphrase's, ParseError for one that is neither's or is short.
    """
    if len(payload) < SIZE:
        raise ParseError(f"a token has at least {SIZE} octets, not {len(payload)}")
    fields: Any = _HEAD.parse(payload)
    if fields.version != _VERSION:
        raise ParseError(f"the token has version {fields.version:#06x}, not {_VERSION:#06x}")
    if fields.token_type == _PASSWORD:
        raise PasswordTokenError("the token is of a passphrase, which needs no key daemon")
    if fields.token_type != _PRIVATE_KEY:
        raise ParseError(f"the token has the unknown type {fields.token_type}")
    end = _BLOB_OFFSET + fields.data_len
    if end > len(payload):
        raise ParseError(
            f"the token's data_len says {fields.data_len} octets, "
            f"{len(payload) - _BLOB_OFFSET} are there"
        )
    signature = _text(fields.signature, "signature")
    if len(signature) != SIGNATURE_SIZE:
        raise ParseError(f"the token's signature has {len(signature)} characters")
    alias = _text(fields.alias, "key module")
    if not alias:
        raise ParseError("the token names no key module")
    return PrivateKeyToken(signature, alias, payload[_BLOB_OFFSET:end])


def build_private_key_token(token: PrivateKeyToken) -> bytes:
    """The payload for the keyring. Raises BuildError for a value that does not fit its field."""
    if len(token.signature) != SIGNATURE_SIZE or not _is_text(token.signature):
        raise BuildError(f"a signature is {SIGNATURE_SIZE} ASCII characters other than NUL")
    if not 1 <= len(token.alias) <= ALIAS_MAX or not _is_text(token.alias):
        raise BuildError(f"a key module's alias is 1 to {ALIAS_MAX} ASCII characters, none a NUL")
    if len(token.blob) > BLOB_MAX:
        raise BuildError(f"a blob has at most {BLOB_MAX} octets, not {len(token.blob)}")
    values = {
        "version": _VERSION,
        "token_type": _PRIVATE_KEY,
        "flags": 0,
        "key_size": SIGNATURE_SIZE,
        "data_len": len(token.blob),
        "signature": token.signature.encode("ascii").ljust(SIGNATURE_SIZE + 1, b"\0"),
        "alias": token.alias.encode("ascii").ljust(ALIAS_MAX + 1, b"\0"),
    }
    head: bytes = _HEAD.build(values)
    return (head + token.blob).ljust(SIZE + len(token.blob), b"\0")


def _is_text(text: str) -> bool:
    """Whether a field that ends with a NUL can hold it."""
    return text.isascii() and "\0" not in text


def _text(octets: bytes, name: str) -> str:
    text, end, _ = octets.partition(b"\0")
    if not end or not text.isascii():
        raise ParseError(f"the token's {name} is not ASCII with a NUL at its end")
    return text.decode("ascii")
