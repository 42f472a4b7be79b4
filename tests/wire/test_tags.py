"""The tag packets: requests, replies, and the file key in them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecryptfs_cuse.wire.errors import BuildError, LengthError, ParseError
from ecryptfs_cuse.wire.length import build_length
from ecryptfs_cuse.wire.tags import (
    FileKey,
    Tag64,
    Tag65,
    Tag66,
    Tag67,
    TagReply,
    TagRequest,
    build_file_key,
    build_reply,
    build_request,
    parse_file_key,
    parse_reply,
    parse_request,
)
from tests.wire import values

SIGNATURE = "0123456789abcdef"


@given(values.requests)
def test_a_request_that_was_built_is_parsed_to_the_same_value(request_: TagRequest) -> None:
    assert parse_request(build_request(request_)) == request_


@given(values.replies)
def test_a_reply_that_was_built_is_parsed_to_the_same_value(reply: TagReply) -> None:
    assert parse_reply(build_reply(reply)) == reply


@given(values.file_keys)
def test_a_file_key_that_was_built_is_parsed_to_the_same_value(file_key: FileKey) -> None:
    assert parse_file_key(build_file_key(file_key)) == file_key


@given(values.any_octets)
def test_any_octets_are_a_request_or_a_parse_error(octets: bytes) -> None:
    try:
        request = parse_request(octets)
    except ParseError:
        return
    assert octets.startswith(build_request(request))


@given(values.any_octets)
def test_any_octets_are_a_reply_or_a_parse_error(octets: bytes) -> None:
    try:
        reply = parse_reply(octets)
    except ParseError:
        return
    assert octets.startswith(bytes((reply.TAG, reply.status)))
    if reply.status == 0:
        assert octets[2:].startswith(build_length(len(reply.content)) + reply.content)


@given(values.any_octets)
def test_any_octets_are_a_file_key_or_a_parse_error(octets: bytes) -> None:
    try:
        file_key = parse_file_key(octets)
    except ParseError:
        return
    assert build_file_key(file_key) == octets


@given(values.requests, st.binary(max_size=9))
def test_octets_behind_a_request_are_ignored(request_: TagRequest, behind: bytes) -> None:
    assert parse_request(build_request(request_) + behind) == request_


@given(values.replies, st.binary(max_size=9))
def test_octets_behind_a_reply_are_ignored(reply: TagReply, behind: bytes) -> None:
    assert parse_reply(build_reply(reply) + behind) == reply


@given(values.failures)
def test_a_failure_is_its_tag_and_its_status_alone(reply: TagReply) -> None:
    assert build_reply(reply) == bytes((reply.TAG, reply.status))


@given(values.successes)
def test_a_success_has_at_least_four_octets(reply: TagReply) -> None:
    assert len(build_reply(reply)) >= 4


def test_a_success_without_a_content_is_filled_up_to_four_octets() -> None:
    assert build_reply(Tag65(0)) == bytes.fromhex("41000000")
    assert build_reply(Tag67(0)) == bytes.fromhex("43000000")


def test_only_tags_64_and_66_ask_for_something() -> None:
    for tag in set(range(256)) - {64, 66}:
        with pytest.raises(ParseError):
            parse_request(bytes((tag,)) + build_request(Tag64(SIGNATURE, b"content"))[1:])


def test_only_tags_65_and_67_answer_something() -> None:
    for tag in set(range(256)) - {65, 67}:
        with pytest.raises(ParseError):
            parse_reply(bytes((tag,)) + build_reply(Tag65(0, b"content"))[1:])


def test_packets_that_differ_in_their_tag_alone_are_not_equal() -> None:
    requests: list[TagRequest] = [Tag64(SIGNATURE, b"content"), Tag66(SIGNATURE, b"content")]
    replies: list[TagReply] = [Tag65(0, b"content"), Tag67(0, b"content")]
    assert requests[0] != requests[1]
    assert replies[0] != replies[1]


@pytest.mark.parametrize("octets", ["", "41", "43"])
def test_a_reply_without_a_status_is_a_parse_error(octets: str) -> None:
    with pytest.raises(ParseError):
        parse_reply(bytes.fromhex(octets))


@pytest.mark.parametrize("octets", ["4100e0", "4300e00000", "4300ff", "4100ff0000000a"])
def test_a_length_that_cannot_be_read_in_a_reply_is_a_length_error(octets: str) -> None:
    with pytest.raises(LengthError):
        parse_reply(bytes.fromhex(octets))


@pytest.mark.parametrize("octets", ["4100", "4300c0", "430001", "410005616263", "4300c0010000"])
def test_missing_octets_in_a_reply_are_a_parse_error_of_the_other_kind(octets: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_reply(bytes.fromhex(octets))
    assert not isinstance(caught.value, LengthError)


@pytest.mark.parametrize("size", range(2 + 16 + 1 + 3))
def test_a_request_of_which_octets_are_missing_is_a_parse_error(size: int) -> None:
    octets = build_request(Tag64(SIGNATURE, b"abc"))
    with pytest.raises(ParseError):
        parse_request(octets[:size])


@pytest.mark.parametrize("octets", ["41ff", "4301", "41ffe0", "43ff056162", "4101ffffffff"])
def test_nothing_is_read_behind_a_status_that_says_failure(octets: str) -> None:
    reply = parse_reply(bytes.fromhex(octets))
    assert reply.status == bytes.fromhex(octets)[1]
    assert reply.content == b""


@given(st.text(st.characters(max_codepoint=0xFF), max_size=20) | values.signatures, st.booleans())
def test_a_signature_of_16_ascii_characters_is_built_and_no_other(
    signature: str, decrypt: bool
) -> None:
    request = (Tag64 if decrypt else Tag66)(signature, b"content")
    if len(signature) == 16 and signature.isascii():
        assert parse_request(build_request(request)) == request
    else:
        with pytest.raises(BuildError):
            build_request(request)


@pytest.mark.parametrize("size", [0, 1, 15, 17, 191, 192])
def test_a_signature_of_another_size_is_not_parsed(size: int) -> None:
    signature = bytes((size,)) if size < 192 else b"\xc0\0"
    octets = b"\x40" + signature + b"a" * size + b"\x01x"
    with pytest.raises(ParseError):
        parse_request(octets)


def test_a_signature_that_is_not_ascii_is_not_parsed() -> None:
    with pytest.raises(ParseError):
        parse_request(b"\x40\x10" + b"\xff" * 16 + b"\x01x")


@pytest.mark.parametrize("size", [8384, 70000])
def test_a_content_longer_than_the_packet_length_can_say_is_not_built(size: int) -> None:
    with pytest.raises(BuildError):
        build_request(Tag66(SIGNATURE, bytes(size)))
    with pytest.raises(BuildError):
        build_reply(Tag67(0, bytes(size)))


@pytest.mark.parametrize("status", [-1, 256])
def test_a_status_of_more_than_an_octet_is_not_built(status: int) -> None:
    with pytest.raises(BuildError):
        build_reply(Tag65(status))


def test_a_failure_with_a_content_is_not_built() -> None:
    with pytest.raises(BuildError):
        build_reply(Tag67(0xFF, b"content"))


@pytest.mark.parametrize("cipher_code", [-1, 256])
def test_a_cipher_code_of_more_than_an_octet_is_not_built(cipher_code: int) -> None:
    with pytest.raises(BuildError):
        build_file_key(FileKey(cipher_code, bytes(16)))


@pytest.mark.parametrize(
    ("key", "checksum"),
    [
        pytest.param(b"", "0000", id="no key"),
        pytest.param(bytes(range(1, 17)), "0088", id="a sum of one octet"),
        pytest.param(b"\xff" * 64, "3fc0", id="a sum of two octets"),
        pytest.param(b"\xff" * 258, "00fe", id="a sum above 16 bits is cut to them"),
    ],
)
def test_the_checksum_is_the_sum_of_the_keys_octets_in_big_endian(
    key: bytes, checksum: str
) -> None:
    assert build_file_key(FileKey(7, key)) == b"\x07" + key + bytes.fromhex(checksum)


@given(values.file_keys, values.u32)
def test_a_payload_with_a_wrong_checksum_is_a_parse_error(file_key: FileKey, other: int) -> None:
    payload = build_file_key(file_key)
    checksum = (other & 0xFFFF).to_bytes(2, "big")
    if payload[-2:] != checksum:
        with pytest.raises(ParseError):
            parse_file_key(payload[:-2] + checksum)


@pytest.mark.parametrize("size", range(3))
def test_fewer_than_three_octets_are_no_payload(size: int) -> None:
    with pytest.raises(ParseError):
        parse_file_key(bytes(size))
