"""Nothing that prints itself prints a key."""

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecryptfs_cuse import wire
from ecryptfs_cuse.wire.auth_token import PrivateKeyToken
from ecryptfs_cuse.wire.packet import Message, Packet
from ecryptfs_cuse.wire.tags import FileKey, Tag64, Tag65, Tag66, Tag67

SIGNATURE = "0123456789abcdef"

CARRIERS: list[Callable[[bytes], object]] = [
    lambda octets: Packet(102, 1, octets),
    lambda octets: Message(1, octets),
    lambda octets: FileKey(7, octets),
    lambda octets: Tag64(SIGNATURE, octets),
    lambda octets: Tag65(0, octets),
    lambda octets: Tag66(SIGNATURE, octets),
    lambda octets: Tag67(0, octets),
    lambda octets: PrivateKeyToken(SIGNATURE, "openssl", octets),
]

two_of_a_size = st.integers(0, 70).flatmap(
    lambda size: st.tuples(*[st.binary(min_size=size, max_size=size)] * 2)
)


def dataclasses_of_the_layer() -> Iterator[type]:
    for module in pkgutil.iter_modules(wire.__path__, wire.__name__ + "."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and dataclasses.is_dataclass(value):
                yield value


@pytest.mark.parametrize("carrier", CARRIERS)
@given(two_of_a_size)
def test_the_repr_is_the_same_whatever_the_octets_are(
    carrier: Callable[[bytes], object], octets: tuple[bytes, bytes]
) -> None:
    one, other = octets
    assert repr(carrier(one)) == repr(carrier(other))
    assert str(carrier(one)) == str(carrier(other))


@pytest.mark.parametrize("carrier", CARRIERS)
def test_the_repr_shows_a_key_neither_in_hex_nor_as_octets_nor_as_text(
    carrier: Callable[[bytes], object],
) -> None:
    key = b"Swordfish~Secret"
    shown = repr(carrier(key))
    for form in (key.hex(), key.hex(" "), repr(key), key.decode(), str(list(key))):
        assert form.lower() not in shown.lower()


def test_the_carriers_above_are_all_that_carry_octets() -> None:
    carrying = {
        kind
        for kind in dataclasses_of_the_layer()
        if any("bytes" in str(field.type) for field in dataclasses.fields(kind))
        and not kind.__name__.startswith("_")
    }
    assert carrying == {type(carrier(b"")) for carrier in CARRIERS}
