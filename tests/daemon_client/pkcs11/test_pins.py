"""PINs, and the login that the keys of one token share."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pkcs11
import pytest
from pkcs11 import TokenFlag
from pkcs11.types import Session

from daemon_client.key import KeyOperationError, WrongPassphraseError
from daemon_client.modules import pkcs11_token
from daemon_client.modules.pkcs11 import SESSIONS_MAX, Pkcs11
from daemon_client.secret import Secret
from ecryptfs_cuse.wire.tags import FileKey, build_file_key
from tests.daemon_client.pkcs11.softhsm import PIN, SoftHsm, location
from tests.daemon_client.pkcs11.tokens import PAYLOAD, SPY, OpenKey, logged_in, refusal, token


def test_the_pin_comes_from_the_file_that_the_uri_names(
    open_key: OpenKey, stored: str, tmp_path: Path
) -> None:
    source = tmp_path / "pin"
    source.write_text(f"{PIN}\n")
    key = open_key(pin=None, object=stored, pin_source=f"file:{source}")
    assert key.decrypt(key.encrypt(PAYLOAD)) == PAYLOAD


def test_a_passphrase_wins_over_the_file(open_key: OpenKey, stored: str) -> None:
    open_key(pin=PIN, object=stored, pin_source="/there/is/none")


def test_a_file_that_is_missing_is_named(stored: str, hsm: SoftHsm) -> None:
    where = location(token="first", object=stored, pin_source="/there/is/none")
    assert "/there/is/none" in refusal(where, pin=None)


@pytest.mark.parametrize("pin", [None, ""])
def test_a_missing_pin_is_a_missing_passphrase(stored: str, pin: str | None, hsm: SoftHsm) -> None:
    with pytest.raises(WrongPassphraseError, match="pin-source"):
        Pkcs11().open(
            location(token="first", object=stored), None if pin is None else Secret(pin.encode())
        )


def test_a_pin_that_is_not_utf_8_is_a_wrong_passphrase(stored: str, hsm: SoftHsm) -> None:
    with pytest.raises(WrongPassphraseError, match="UTF-8"):
        Pkcs11().open(location(token="first", object=stored), Secret(b"\xff\xff\xff\xff"))


def test_a_wrong_pin_is_shown_to_the_token_once_however_often_it_is_given(
    hsm: SoftHsm, stored: str, spied: Callable[[], list[str]]
) -> None:
    for word in ("will not be tried again", "before", "before"):
        with pytest.raises(WrongPassphraseError, match=word) as refused:
            Pkcs11().open(location(SPY, token="first", object=stored), Secret(b"not it"))
        assert "not it" not in str(refused.value)
    assert spied().count("C_Login") == 1


def test_after_the_right_pin_a_wrong_one_may_be_shown_again(
    hsm: SoftHsm, stored: str, spied: Callable[[], list[str]]
) -> None:
    where = location(SPY, token="first", object=stored)
    for _ in range(2):
        with pytest.raises(WrongPassphraseError):
            Pkcs11().open(where, Secret(b"another wrong one"))
        Pkcs11().open(where, Secret(PIN.encode())).close()
    assert spied().count("C_Login") == 4


def test_a_wrong_pin_for_a_token_in_use_is_refused_and_not_shown_to_it(
    open_key: OpenKey, stored: str, spied: Callable[[], list[str]]
) -> None:
    key = open_key(library=SPY, object=stored)
    with pytest.raises(WrongPassphraseError, match="another PIN"):
        open_key("not it", library=SPY, object=stored)
    assert key.decrypt(key.encrypt(PAYLOAD)) == PAYLOAD
    key.close()
    assert spied().count("C_Login") == 1


@pytest.mark.parametrize(
    "error", [pkcs11.PinLocked, pkcs11.PinExpired, pkcs11.PinInvalid, pkcs11.PinLenRange]
)
def test_what_else_a_token_has_against_a_pin_is_for_the_passphrase_too(
    error: type[pkcs11.PKCS11Error],
) -> None:
    class Refusing:
        """SoftHSM locks no PINs."""

        label = "refusing"
        flags = TokenFlag.LOGIN_REQUIRED

        def open(self, user_pin: str) -> Session:
            raise error

    with pytest.raises(WrongPassphraseError, match="PIN"):
        pkcs11_token.Login("refusing").enter(Refusing(), Secret(b"1234"))  # type: ignore[arg-type]  # stands in for one


def test_two_keys_of_one_token_are_open_at_a_time_with_one_login(
    open_key: OpenKey, stored: str, spied: Callable[[], list[str]]
) -> None:
    one, other = (open_key(library=SPY, object=stored) for _ in range(2))
    assert other.decrypt(one.encrypt(PAYLOAD)) == PAYLOAD
    one.close()
    assert other.decrypt(one.encrypt(PAYLOAD)) == PAYLOAD
    assert logged_in("first")
    other.close()
    assert not logged_in("first")
    calls = spied()
    assert (calls.count("C_Login"), calls.count("C_Logout")) == (1, 1)
    assert calls.count("C_OpenSession") == calls.count("C_CloseSession")


def test_the_pin_is_kept_until_the_last_key_is_closed_and_wiped_then(
    open_key: OpenKey, stored: str
) -> None:
    passphrase = Secret(PIN.encode())
    one = Pkcs11().open(location(token="first", object=stored), passphrase)
    passphrase.wipe()
    other, kept = open_key(object=stored), one._login._pin
    assert kept is not None
    one.close()
    assert kept.octets == PIN.encode()
    other.close()
    assert not kept.octets


def test_a_key_that_cannot_be_opened_leaves_nobody_logged_in(stored: str, hsm: SoftHsm) -> None:
    refusal(location(token="first", object="there is none"))
    assert not logged_in("first")


def test_a_login_that_is_not_ours_is_used_and_left(open_key: OpenKey, stored: str) -> None:
    with token("first").open(user_pin=PIN):
        key = open_key(object=stored)
        assert key.decrypt(key.encrypt(PAYLOAD)) == PAYLOAD
        key.close()
        assert logged_in("first")


def test_a_closed_key_decrypts_nothing_and_can_be_closed_again(
    open_key: OpenKey, stored: str
) -> None:
    open_one, other = open_key(object=stored), open_key(object=stored)
    open_one.close()
    open_one.close()
    with pytest.raises(KeyOperationError, match="closed"):
        open_one.decrypt(open_one.encrypt(PAYLOAD))
    assert other.decrypt(other.encrypt(PAYLOAD)) == PAYLOAD


def test_many_threads_decrypt_at_a_time_in_a_few_sessions(
    open_key: OpenKey, stored: str, spied: Callable[[], list[str]]
) -> None:
    key = open_key(library=SPY, object=stored)
    payloads = [build_file_key(FileKey(7, os.urandom(16))) for _ in range(200)]
    together = threading.Barrier(8)

    def back(payload: bytes) -> bytes:
        return key.decrypt(key.encrypt(payload))

    with ThreadPoolExecutor(8, initializer=together.wait) as threads:
        assert list(threads.map(back, payloads)) == payloads
    key.close()
    # Besides: one for the login, and one to find the key.
    assert spied().count("C_OpenSession") <= SESSIONS_MAX + 2
