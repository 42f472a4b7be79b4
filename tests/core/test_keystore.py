"""The verdict on a daemon's answer. The tables follow what was recorded on a real kernel."""

import errno
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecryptfs_cuse.core.errors import DeviceError
from ecryptfs_cuse.core.keystore import decrypted_key, encrypted_key
from ecryptfs_cuse.wire.tags import FileKey
from tests.core.emulation import refused

KEY = bytes.fromhex("345d0816b5ae90773f494fa8cd353c3a")
CHECKSUM = sum(KEY).to_bytes(2, "big")
ENCRYPTED = bytes.fromhex("135d6e07524ceff4a0b1c2d3e4f506172839a0")


def length(size: int) -> bytes:
    if size < 192:
        return bytes((size,))
    return bytes((192 + (size - 192) // 256, (size - 192) % 256))


def tag_67(content: bytes, size: int | None = None, *, start: str = "4300") -> bytes:
    return bytes.fromhex(start) + length(len(content) if size is None else size) + content


def payload(key: bytes, *, code: int = 7, checksum: bytes | None = None) -> bytes:
    if checksum is None:
        checksum = sum(key).to_bytes(2, "big")
    return bytes((code,)) + key + checksum


def tag_65(content: bytes, size: int | None = None, *, start: str = "4100") -> bytes:
    return tag_67(content, size, start=start)


@pytest.mark.parametrize(
    ("answer", "key"),
    [
        pytest.param(tag_67(ENCRYPTED), ENCRYPTED, id="good"),
        pytest.param(tag_67(b"x"), b"x", id="four octets, a key of one"),
        pytest.param(tag_67(b"") + b"x", b"", id="four octets, a key of none"),
        pytest.param(tag_67(ENCRYPTED) + b"garbage", ENCRYPTED, id="something behind it"),
        *(
            pytest.param(tag_67(bytes(size)), bytes(size), id=f"an encrypted key of {size}")
            for size in (100, 191, 192, 256, 511, 512)
        ),
    ],
)
def test_an_encrypted_key_is_taken(answer: bytes, key: bytes) -> None:
    assert encrypted_key(answer) == key


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        pytest.param(tag_67(ENCRYPTED, start="4301"), errno.EIO, id="status 1"),
        pytest.param(tag_67(ENCRYPTED, start="43ff"), errno.EIO, id="status ff"),
        pytest.param(b"\x43\xff", errno.EIO, id="the failure that ecryptfsd sends"),
        pytest.param(b"", errno.EIO, id="nothing"),
        pytest.param(b"\x43", errno.EIO, id="one octet"),
        pytest.param(b"\x43\0", errno.EIO, id="two octets"),
        pytest.param(tag_67(b""), errno.EIO, id="three octets"),
        pytest.param(tag_67(ENCRYPTED, start="4100"), errno.EIO, id="tag 65"),
        pytest.param(tag_67(ENCRYPTED, start="4200"), errno.EIO, id="tag 66"),
        pytest.param(tag_67(ENCRYPTED, start="0000"), errno.EIO, id="tag 0"),
        pytest.param(tag_67(ENCRYPTED, len(ENCRYPTED) + 1), errno.EIO, id="one octet missing"),
        pytest.param(tag_67(bytes(512), 513), errno.EIO, id="513 announced, 512 there"),
        pytest.param(tag_67(bytes(513)), errno.EIO, id="an encrypted key of 513"),
        pytest.param(b"\x43\0\xe0" + ENCRYPTED, errno.EINVAL, id="length octet 224"),
        pytest.param(b"\x43\0\xff\0\0\0\x13" + ENCRYPTED, errno.EINVAL, id="length octet 255"),
    ],
)
def test_an_encrypted_key_is_refused(answer: bytes, number: int) -> None:
    with refused(number):
        encrypted_key(answer)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param("43 01 e0 00", "the status", id="status"),
        pytest.param("41 00 e0 00", "the tag", id="tag 65"),
        pytest.param("42 00 e0 00", "the tag", id="tag 66"),
        pytest.param("43 00 e0", "the four octets", id="size"),
    ],
)
def test_what_comes_before_the_packet_length_is_judged_before_it(answer: str, why: str) -> None:
    with refused(errno.EIO):
        encrypted_key(bytes.fromhex(answer))


@pytest.mark.parametrize(
    ("answer", "file_key"),
    [
        pytest.param(tag_65(payload(KEY)), FileKey(7, KEY), id="good"),
        pytest.param(tag_65(payload(KEY)) + b"xx", FileKey(7, KEY), id="something behind it"),
        pytest.param(tag_65(payload(b"")), FileKey(7, b""), id="a key of none"),
        pytest.param(tag_65(payload(KEY[:15])), FileKey(7, KEY[:15]), id="a key of 15"),
        pytest.param(tag_65(payload(KEY * 2)), FileKey(7, KEY * 2), id="a key of 32"),
        pytest.param(tag_65(payload(KEY * 4)), FileKey(7, KEY * 4), id="a key of 64"),
        *(
            pytest.param(tag_65(payload(KEY, code=code)), FileKey(code, KEY), id=f"code {code}")
            for code in (2, 3, 4, 7, 8, 9, 10, 11)
        ),
    ],
)
def test_a_file_key_is_taken_although_its_cipher_may_not_suit_it(
    answer: bytes, file_key: FileKey
) -> None:
    assert decrypted_key(answer) == file_key


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(tag_65(payload(KEY), start="4101"), id="status 1"),
        pytest.param(b"\x41\xff", id="the failure that ecryptfsd sends"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x41\0\0", id="three octets"),
        pytest.param(b"\x41\0\0\0", id="a payload of none"),
        pytest.param(tag_65(b"\x07\0"), id="a payload of two octets"),
        pytest.param(tag_65(payload(KEY), start="4300"), id="tag 67"),
        pytest.param(tag_65(payload(KEY), start="4000"), id="tag 64"),
        pytest.param(
            tag_65(payload(KEY, checksum=(sum(KEY) + 1).to_bytes(2, "big"))),
            id="a checksum too large by one",
        ),
        pytest.param(
            tag_65(payload(KEY, checksum=CHECKSUM[::-1])), id="a checksum in little endian"
        ),
        pytest.param(tag_65(payload(KEY), 20), id="one octet missing"),
        pytest.param(tag_65(payload(KEY), 18), id="one octet too many"),
        pytest.param(b"\x41\0\xff" + payload(KEY), id="length octet 255"),
        pytest.param(b"\x41\0\xe0" + payload(KEY), id="length octet 224"),
        pytest.param(tag_65(payload(KEY, code=0)), id="cipher code 0"),
        pytest.param(tag_65(payload(KEY, code=0xFF)), id="cipher code ff"),
        pytest.param(tag_65(payload(bytes(65))), id="a key of 65"),
        pytest.param(tag_65(payload(bytes(200))), id="a key of 200"),
    ],
)
def test_a_file_key_is_refused_and_the_error_is_always_the_same(answer: bytes) -> None:
    with refused(errno.EIO):
        decrypted_key(answer)


def verdict(judge: Callable[[bytes], object], answer: bytes) -> int:
    """The errno of the verdict, 0 where the answer is taken."""
    try:
        judge(answer)
    except DeviceError as error:
        return error.errno or -1
    return 0


def behind(start: str) -> st.SearchStrategy[bytes]:
    return st.binary(max_size=40).map(lambda rest: bytes.fromhex(start) + rest)


@given(st.binary(max_size=40) | behind("4100"))
def test_any_answer_is_a_file_key_or_an_error(answer: bytes) -> None:
    assert verdict(decrypted_key, answer) in (0, errno.EIO)


@given(st.binary(max_size=40) | behind("4300"))
def test_any_answer_is_an_encrypted_key_or_an_error(answer: bytes) -> None:
    assert verdict(encrypted_key, answer) in (0, errno.EIO, errno.EINVAL)


def test_the_error_does_not_tell_the_key() -> None:
    with pytest.raises(DeviceError) as caught:
        decrypted_key(tag_65(payload(KEY, code=0)))
    assert KEY.hex() not in str(caught.value)
    assert repr(KEY) not in str(caught.value)
