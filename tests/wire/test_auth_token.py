"""The token in the keyring, beside what ecryptfs-utils itself makes of the same struct."""

import ctypes
import secrets
import struct
from ctypes.util import find_library

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ecryptfs_cuse.wire.auth_token import (
    ALIAS_MAX,
    BLOB_MAX,
    SIZE,
    PrivateKeyToken,
    build_private_key_token,
    parse_private_key_token,
)
from ecryptfs_cuse.wire.errors import BuildError, ParseError
from tests.ecryptfsd.auth_token import password_token_in_user_keyring
from tests.wire import values

SIGNATURE = "13a050d7dceb34a3"
BLOB = bytes(range(1, 201))
TOKEN = PrivateKeyToken(SIGNATURE, "openssl", BLOB)

VERSION, PASSWORD, PRIVATE_KEY = 0x0004, 0, 1
BLOB_OFFSET = 670

# Text that a field with a NUL behind it can hold.
characters = st.characters(min_codepoint=1, max_codepoint=127)
tokens = st.builds(
    PrivateKeyToken,
    st.text(characters, min_size=16, max_size=16),
    st.text(characters, min_size=1, max_size=ALIAS_MAX),
    values.content(BLOB_MAX),
)


def by_hand(
    *,
    version: int = VERSION,
    token_type: int = PRIVATE_KEY,
    data_len: int = len(BLOB),
    signature: bytes = SIGNATURE.encode(),
    alias: bytes = b"openssl",
    size: int = SIZE + len(BLOB),
) -> bytes:
    """A token, each field put at its offset."""
    octets = bytearray(size)
    struct.pack_into("=H", octets, 0, version)
    struct.pack_into("=H", octets, 2, token_type)
    struct.pack_into("=I", octets, 628, 16)
    struct.pack_into("=I", octets, 632, data_len)
    struct.pack_into("17s", octets, 636, signature)
    struct.pack_into("17s", octets, 653, alias)
    octets[BLOB_OFFSET : BLOB_OFFSET + len(BLOB)] = BLOB
    return bytes(octets[:size])


# Of a size that is looked into, with fields that are right more often than chance has them.
likely = st.builds(
    by_hand,
    version=st.just(VERSION) | st.integers(0, 0xFFFF),
    token_type=st.just(PRIVATE_KEY) | st.integers(0, 0xFFFF),
    data_len=st.integers(0, 300) | values.u32,
    signature=st.just(SIGNATURE.encode()) | st.binary(max_size=17),
    alias=st.binary(max_size=17),
    size=st.integers(SIZE, 1000),
)


@given(tokens)
def test_a_token_that_was_built_is_parsed_to_the_same_value(token: PrivateKeyToken) -> None:
    assert parse_private_key_token(build_private_key_token(token)) == token


def test_every_field_is_at_its_offset() -> None:
    assert build_private_key_token(TOKEN) == by_hand()
    assert parse_private_key_token(by_hand()) == TOKEN


@given(st.binary(max_size=1000) | likely | values.damaged(tokens.map(build_private_key_token)))
@example(bytes(SIZE))
@example(b"\xff" * SIZE)
def test_any_octets_are_a_token_or_a_parse_error(octets: bytes) -> None:
    try:
        token = parse_private_key_token(octets)
    except ParseError:
        return
    assert octets[BLOB_OFFSET:].startswith(token.blob)
    if len(token.blob) <= BLOB_MAX:
        assert parse_private_key_token(build_private_key_token(token)) == token


@given(tokens)
def test_a_token_has_the_octets_of_the_struct_and_of_the_blob(token: PrivateKeyToken) -> None:
    assert len(build_private_key_token(token)) == 740 + len(token.blob)


def test_octets_behind_the_blob_are_not_looked_at() -> None:
    assert parse_private_key_token(by_hand() + b"more") == TOKEN


def refused(octets: bytes, why: str) -> None:
    with pytest.raises(ParseError, match=why):
        parse_private_key_token(octets)


@pytest.mark.parametrize("size", [0, 1, 8, 670, 739])
def test_fewer_octets_than_the_struct_has_are_refused(size: int) -> None:
    refused(by_hand(data_len=0)[:size], f"at least 740 octets, not {size}")
    assert parse_private_key_token(by_hand(data_len=0)[:740]).blob == b""


@pytest.mark.parametrize("data_len", [71, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF])
def test_a_blob_that_ends_behind_the_payload_is_refused(data_len: int) -> None:
    refused(by_hand(data_len=data_len, size=740), f"data_len says {data_len} octets, 70 are there")


def test_a_blob_may_end_where_the_payload_ends() -> None:
    assert parse_private_key_token(by_hand(data_len=70, size=740)).blob == BLOB[:70]


@pytest.mark.parametrize("version", [0, 0x0003, 0x0005, 0x0400, 0xFFFF])
def test_another_version_is_refused(version: int) -> None:
    refused(by_hand(version=version), f"version 0x{version:04x}, not 0x0004")


def test_a_token_of_a_passphrase_is_refused_as_such() -> None:
    refused(by_hand(token_type=PASSWORD), "is of a passphrase")


@pytest.mark.parametrize("token_type", [2, 0x0100, 0xFFFF])
def test_an_unknown_type_is_refused(token_type: int) -> None:
    refused(by_hand(token_type=token_type), f"unknown type {token_type}")


@pytest.mark.parametrize(
    ("signature", "why"),
    [
        (b"", "signature has 0 characters"),
        (SIGNATURE[:15].encode(), "signature has 15 characters"),
        (SIGNATURE.encode() + b"0", "signature is not ASCII with a NUL"),
        (b"\xe4" * 16, "signature is not ASCII with a NUL"),
    ],
)
def test_a_signature_is_16_ascii_characters_and_a_nul(signature: bytes, why: str) -> None:
    refused(by_hand(signature=signature), why)


@pytest.mark.parametrize(
    ("alias", "why"),
    [
        (b"", "names no key module"),
        (b"a" * 17, "key module is not ASCII with a NUL"),
        (b"\xe4", "key module is not ASCII with a NUL"),
    ],
)
def test_an_alias_is_1_to_16_ascii_characters_and_a_nul(alias: bytes, why: str) -> None:
    refused(by_hand(alias=alias), why)
    longest = parse_private_key_token(by_hand(alias=b"a" * 16))
    assert longest.alias == "a" * 16


def test_what_is_behind_the_nul_of_a_text_is_not_looked_at() -> None:
    assert parse_private_key_token(by_hand(alias=b"openssl\0\xff\xff")) == TOKEN


@pytest.mark.parametrize(
    "token",
    [
        PrivateKeyToken(SIGNATURE[:15], "openssl", b""),
        PrivateKeyToken(SIGNATURE + "0", "openssl", b""),
        PrivateKeyToken("ä" * 16, "openssl", b""),
        PrivateKeyToken("\0" * 16, "openssl", b""),
        PrivateKeyToken(SIGNATURE[:15] + "\0", "openssl", b""),
        PrivateKeyToken(SIGNATURE, "", b""),
        PrivateKeyToken(SIGNATURE, "a" * 17, b""),
        PrivateKeyToken(SIGNATURE, "ä", b""),
        PrivateKeyToken(SIGNATURE, "a\0b", b""),
        PrivateKeyToken(SIGNATURE, "openssl", bytes(BLOB_MAX + 1)),
    ],
)
def test_a_value_that_does_not_fit_its_field_is_not_built(token: PrivateKeyToken) -> None:
    with pytest.raises(BuildError):
        build_private_key_token(token)


@given(st.binary(min_size=4, max_size=60))
def test_a_token_does_not_show_its_blob(blob: bytes) -> None:
    shown = repr(PrivateKeyToken(SIGNATURE, "openssl", blob))
    assert shown == f"PrivateKeyToken(signature='{SIGNATURE}', alias='openssl')"


def test_libecryptfs_makes_a_token_of_the_same_octets() -> None:
    assert build_private_key_token(TOKEN) == _generate_key_payload(TOKEN)


@pytest.mark.parametrize("passphrase", [secrets.token_hex(8), "a" * 64], ids=["usual", "longest"])
def test_a_passphrase_token_of_ecryptfs_utils_is_refused_as_such(passphrase: str) -> None:
    with password_token_in_user_keyring(passphrase) as (signature, octets):
        assert len(octets) == 740
        assert struct.unpack_from("=HH", octets) == (VERSION, PASSWORD)
        assert octets[712:729] == signature.encode() + b"\0"
        refused(octets, "is of a passphrase")


_KeyData = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t), ctypes.c_void_p
)
_KeySignature = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


class _Operations(ctypes.Structure):
    """struct ecryptfs_key_mod_ops, as far as it is used here."""

    _fields_ = (
        ("before", ctypes.c_void_p * 6),
        ("get_key_data", _KeyData),
        ("get_key_sig", _KeySignature),
        ("behind", ctypes.c_void_p * 5),
    )


class _KeyModule(ctypes.Structure):
    """struct ecryptfs_key_mod."""

    _fields_ = (
        ("lib_handle", ctypes.c_void_p),
        ("alias", ctypes.c_char_p),
        ("paths", ctypes.c_void_p * 3),
        ("ops", ctypes.POINTER(_Operations)),
        ("param_vals", ctypes.c_void_p),
        ("num_param_vals", ctypes.c_uint32),
        ("blob", ctypes.c_char_p),
        ("blob_size", ctypes.c_size_t),
        ("next", ctypes.c_void_p),
    )


def _generate_key_payload(token: PrivateKeyToken) -> bytes:
    """The token as ecryptfs_generate_key_payload of libecryptfs makes it."""

    def no_key_data(to: int, size: "ctypes._Pointer[ctypes.c_size_t]", blob: int) -> int:
        size[0] = ctypes.c_size_t(0)
        return 0

    def sign(to: int, blob: int) -> int:
        ctypes.memmove(to, token.signature.encode() + b"\0", 17)
        return 0

    operations = _Operations(get_key_data=_KeyData(no_key_data), get_key_sig=_KeySignature(sign))
    module = _KeyModule(
        alias=token.alias.encode(),
        ops=ctypes.pointer(operations),
        blob=token.blob,
        blob_size=len(token.blob),
    )
    made = ctypes.create_string_buffer(SIZE + len(token.blob))
    signature = ctypes.create_string_buffer(17)
    name = find_library("ecryptfs")
    assert name is not None, "run make setup, or install the Debian package ecryptfs-utils"
    generate = ctypes.CDLL(name).ecryptfs_generate_key_payload
    size = ctypes.c_size_t(len(token.blob))
    assert generate(made, ctypes.byref(module), signature, size) == 0
    assert signature.value == token.signature.encode()
    return made.raw
