"""Failures of a token, and sessions that it has lost."""

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from daemon_client.key import KeyOperationError
from daemon_client.modules.pkcs11 import SESSIONS_MAX
from tests.daemon_client.pkcs11.softhsm import PIN, SoftHsm
from tests.daemon_client.pkcs11.tokens import (
    PAYLOAD,
    SPY,
    OpenKey,
    library_call,
    logged_in,
    restart_library,
    token,
    write_pem,
)


def all_of(threads: ThreadPoolExecutor, work: Callable[[], bytes]) -> list[bytes]:
    """What each of SESSIONS_MAX threads has as its result."""
    return [each.result() for each in [threads.submit(work) for _ in range(SESSIONS_MAX)]]


@pytest.mark.parametrize("ciphertext", [b"", b"x", bytes(256), b"\xff" * 256, bytes(257)])
def test_what_was_not_made_with_the_key_is_refused_and_the_key_goes_on(
    open_key: OpenKey, stored: str, ciphertext: bytes
) -> None:
    key = open_key(object=stored)
    with pytest.raises(KeyOperationError) as refused:
        key.decrypt(ciphertext)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
    assert key.decrypt(key.encrypt(PAYLOAD)) == PAYLOAD


def test_a_failure_of_the_token_is_named_by_the_error_of_pkcs11(
    open_key: OpenKey, stored: str
) -> None:
    with pytest.raises(KeyOperationError, match="GeneralError"):
        open_key(object=stored).decrypt(b"\x01" * 256)


def test_a_key_survives_that_all_sessions_are_closed(open_key: OpenKey, stored: str) -> None:
    one, other = open_key(object=stored), open_key(object=stored)
    library_call("C_CloseAllSessions", token("first").slot.slot_id)
    for each in (one, other, one):
        assert each.decrypt(each.encrypt(PAYLOAD)) == PAYLOAD


def test_a_key_can_be_opened_where_a_login_was_lost_and_nobody_noticed(
    open_key: OpenKey, stored: str
) -> None:
    open_key(object=stored)
    library_call("C_CloseAllSessions", token("first").slot.slot_id)
    key = open_key(object=stored)
    assert key.decrypt(key.encrypt(PAYLOAD)) == PAYLOAD


def test_a_key_survives_a_logout(open_key: OpenKey, stored: str) -> None:
    one, other = open_key(object=stored), open_key(object=stored)
    with contextlib.closing(token("first").open()) as session:
        library_call("C_Logout", getattr(session, "handle"))  # noqa: B009  # not in its stubs
    for each in (one, other, one):
        assert each.decrypt(each.encrypt(PAYLOAD)) == PAYLOAD


def test_a_key_survives_that_the_library_starts_anew(open_key: OpenKey, stored: str) -> None:
    key = open_key(object=stored)
    restart_library()
    assert key.decrypt(key.encrypt(PAYLOAD)) == PAYLOAD


def test_several_threads_recover_from_lost_sessions_with_one_login(
    open_key: OpenKey, stored: str, spied: Callable[[], list[str]]
) -> None:
    key = open_key(library=SPY, object=stored)
    ciphertext = key.encrypt(PAYLOAD)
    together = threading.Barrier(SESSIONS_MAX)

    def back() -> bytes:
        together.wait()
        return key.decrypt(ciphertext)

    with ThreadPoolExecutor(SESSIONS_MAX) as threads:
        for _ in range(3):
            assert all_of(threads, back) == [PAYLOAD] * SESSIONS_MAX
            library_call("C_CloseAllSessions", token("first").slot.slot_id)
    assert key.decrypt(ciphertext) == PAYLOAD
    key.close()
    assert spied().count("C_Login") == 4


def test_a_pin_that_was_changed_meanwhile_is_shown_to_the_token_once(
    hsm: SoftHsm,
    open_key: OpenKey,
    private_key: rsa.RSAPrivateKey,
    tmp_path: Path,
    spied: Callable[[], list[str]],
) -> None:
    hsm.import_key(write_pem(tmp_path / "key.pem", private_key), "second", "changed", "51")
    key = open_key(library=SPY, token="second", object="changed")
    hsm.tool("second", "--change-pin", "--new-pin", "a new PIN")
    restart_library()  # until then it remembers the old one
    ciphertext, before = key.encrypt(PAYLOAD), spied().count("C_Login")
    for word in ("is not that of", "before", "before"):
        with pytest.raises(KeyOperationError, match=word):
            key.decrypt(ciphertext)
    assert spied().count("C_Login") == before + 1
    key.close()
    hsm.tool("second", "--change-pin", "--new-pin", PIN, pin="a new PIN")
    restart_library()


def test_a_key_that_was_deleted_decrypts_no_more_and_leaves_no_sessions_open(
    hsm: SoftHsm,
    open_key: OpenKey,
    private_key: rsa.RSAPrivateKey,
    tmp_path: Path,
    label: str,
    spied: Callable[[], list[str]],
) -> None:
    hsm.import_key(write_pem(tmp_path / "key.pem", private_key), "first", label, "61")
    key = open_key(library=SPY, object=label)
    ciphertext = key.encrypt(PAYLOAD)
    hsm.tool("first", "--delete-object", "--type", "privkey", "--label", label)
    for _ in range(3):
        with pytest.raises(KeyOperationError, match="no private key"):
            key.decrypt(ciphertext)
    assert spied().count("C_Login") == 2
    key.close()
    # The one that is left is that of the second login, which the first has made superfluous.
    assert spied().count("C_OpenSession") == spied().count("C_CloseSession") + 1
    assert not logged_in("first")


def test_another_key_in_its_place_is_not_taken_for_it(
    hsm: SoftHsm, open_key: OpenKey, private_key: rsa.RSAPrivateKey, tmp_path: Path, label: str
) -> None:
    hsm.import_key(write_pem(tmp_path / "key.pem", private_key), "first", label, "62")
    key = open_key(object=label)
    hsm.tool("first", "--delete-object", "--type", "privkey", "--label", label)
    other = write_pem(tmp_path / "other.pem", rsa.generate_private_key(65537, 2048))
    hsm.import_key(other, "first", label, "63")
    with pytest.raises(KeyOperationError, match="another key"):
        key.decrypt(key.encrypt(PAYLOAD))
