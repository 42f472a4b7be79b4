"""Opening keys by key modules of which nobody knows whether they keep to the rules."""

import pytest

from daemon_client.key import Key, KeyModule, KeyOpenError, WrongPassphraseError, open_key
from daemon_client.modules.openssl import PemKey
from daemon_client.secret import Secret


class Scripted(KeyModule):
    """Gives a key, or raises an error."""

    alias = "scripted"

    def __init__(self, result: Key | Exception) -> None:
        self.result = result

    def open(self, location: str, passphrase: Secret | None) -> Key:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


class Nameless(Key):
    """A key whose author forgot the signature."""

    def encrypt(self, payload: bytes) -> bytes:
        return payload

    def decrypt(self, ciphertext: bytes) -> bytes:
        return ciphertext

    def describe(self) -> str:
        return "nameless"


@pytest.mark.parametrize("error", [RuntimeError("swordfish"), OSError(5, "swordfish"), KeyError()])
def test_whatever_a_module_raises_is_a_key_that_cannot_be_opened(error: Exception) -> None:
    with pytest.raises(KeyOpenError) as refused:
        open_key(Scripted(error), "here", Secret(b"swordfish"), None)
    assert str(refused.value) == (
        f"the key module scripted failed with {type(error).__name__}: here"
    )
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None


@pytest.mark.parametrize("error", [KeyOpenError("gone"), WrongPassphraseError("wrong")])
def test_what_a_module_says_by_the_rules_is_left_as_it_is(error: KeyOpenError) -> None:
    with pytest.raises(KeyOpenError) as refused:
        open_key(Scripted(error), "here", None, None)
    assert refused.value is error


def test_a_key_with_another_signature_is_refused_and_one_without_too(key: PemKey) -> None:
    assert open_key(Scripted(key), "here", None, None) is key
    assert open_key(Scripted(key), "here", None, key.signature) is key
    with pytest.raises(KeyOpenError, match=f"is {key.signature}, not '0123456789abcdef'"):
        open_key(Scripted(key), "here", None, "0123456789abcdef")
    for signature in (key.signature, None):
        with pytest.raises(KeyOpenError, match="failed with AttributeError"):
            open_key(Scripted(Nameless()), "here", None, signature)
