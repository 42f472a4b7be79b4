"""The packet length: one or two octets, never more."""

import pytest
from construct import ConstructError
from hypothesis import given
from hypothesis import strategies as st

from ecryptfs_cuse.wire.errors import BuildError, LengthError
from ecryptfs_cuse.wire.length import PacketLength, build_length, parse_length

PREFIX = PacketLength()
BEHIND = b"\xee" * 3


def parsed_by_construct(octets: bytes) -> int:
    length = PREFIX.parse(octets)
    assert isinstance(length, int)
    return length


def test_a_first_octet_below_192_is_the_length_itself() -> None:
    for first in range(192):
        assert parse_length(bytes((first,))) == (first, 1)
        assert parse_length(bytes((first,)) + BEHIND) == (first, 1)
        assert parsed_by_construct(bytes((first,)) + BEHIND) == first


def test_a_first_octet_of_192_to_223_and_the_second_count_from_192_to_8383() -> None:
    pairs = [bytes((first, second)) for first in range(192, 224) for second in range(256)]
    assert [parse_length(pair + BEHIND) for pair in pairs] == [(n, 2) for n in range(192, 8384)]
    assert [parsed_by_construct(pair + BEHIND) for pair in pairs] == list(range(192, 8384))


def test_a_first_octet_of_224_or_more_is_refused() -> None:
    for first in range(224, 256):
        for behind in (b"", b"\0", b"\0\0\0\x0a" + bytes(10)):
            with pytest.raises(LengthError):
                parse_length(bytes((first,)) + behind)
            with pytest.raises(LengthError):
                PREFIX.parse(bytes((first,)) + behind)


@pytest.mark.parametrize("octets", [b"", b"\xc0", b"\xdf"])
def test_a_length_of_which_an_octet_is_missing_is_refused(octets: bytes) -> None:
    with pytest.raises(LengthError):
        parse_length(octets)
    with pytest.raises(ConstructError):
        PREFIX.parse(octets)


@given(st.binary(max_size=4))
def test_any_octets_are_a_length_or_a_length_error(octets: bytes) -> None:
    try:
        length, size = parse_length(memoryview(octets))
    except LengthError:
        return
    assert build_length(length) == octets[:size]


def test_every_length_is_built_in_the_fewest_octets_and_read_back() -> None:
    for length in range(8384):
        octets = build_length(length)
        assert len(octets) == (1 if length < 192 else 2)
        assert parse_length(octets) == (length, len(octets))


@pytest.mark.parametrize("length", [0, 191, 192, 447, 448, 8383])
def test_the_construct_builds_what_the_function_builds(length: int) -> None:
    assert PREFIX.build(length) == build_length(length)


@given(st.integers(max_value=-1) | st.integers(min_value=8384))
def test_a_length_that_the_parser_would_refuse_is_not_built(length: int) -> None:
    with pytest.raises(BuildError):
        build_length(length)
    with pytest.raises(BuildError):
        PREFIX.build(length)
