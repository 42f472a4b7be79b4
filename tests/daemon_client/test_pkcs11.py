"""The key module pkcs11, on tokens of SoftHSM 2."""

import contextlib
import ctypes
import datetime
import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pkcs11
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pkcs11 import Attribute, KeyType, ObjectClass, TokenFlag
from pkcs11.types import Session, Token

from daemon_client.key import KeyOpenError, KeyOperationError, WrongPassphraseError, key_module
from daemon_client.modules import pkcs11_token
from daemon_client.modules.openssl import PemKey
from daemon_client.modules.pkcs11 import SESSIONS_MAX, Pkcs11, Pkcs11Key
from daemon_client.modules.pkcs11_object import public_key_of
from daemon_client.modules.pkcs11_uri import Pkcs11Uri
from daemon_client.secret import Secret
from ecryptfs_cuse.wire.tags import FileKey, build_file_key
from tests.daemon_client.softhsm import LIBRARY, PIN, SoftHsm, in_this_process, location

PAYLOAD = build_file_key(FileKey(7, bytes(range(16))))
SPY = next(Path("/usr/lib").glob("*/pkcs11-spy.so"), Path("pkcs11-spy.so"))
"""A library of OpenSC's that passes all calls on to another and writes them down."""

OpenKey = Callable[..., Pkcs11Key]
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def hsm() -> SoftHsm:
    return in_this_process()


@pytest.fixture(scope="session")
def stored(
    hsm: SoftHsm, private_key: rsa.RSAPrivateKey, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The label of a key on the token "first"; its CKA_ID is 01."""
    pem = write_pem(tmp_path_factory.mktemp("stored") / "key.pem", private_key)
    hsm.import_key(pem, "first", "stored", "01")
    return "stored"


@pytest.fixture
def label() -> str:
    """A label that no other test uses."""
    return f"key {next(_numbers)}"


@pytest.fixture
def open_key(hsm: SoftHsm) -> Iterator[OpenKey]:
    """Open keys; at the end they are closed."""
    with contextlib.ExitStack() as opened:

        def open_one(pin: str | None = PIN, **attributes: str) -> Pkcs11Key:
            where = location(**{"token": "first", **attributes})
            key = Pkcs11().open(where, Secret(pin.encode()) if pin is not None else None)
            opened.callback(key.close)
            return key

        yield open_one


@pytest.fixture
def officer(hsm: SoftHsm) -> Iterator[Session]:
    """A session that may write to the token "first"; the test opens its keys after that."""
    with token("first").open(rw=True, user_pin=PIN) as session:
        yield session


@pytest.fixture
def spied(hsm: SoftHsm, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What has been called since, through the library SPY."""
    path = hsm.directory / "spied"
    monkeypatch.setenv("PKCS11SPY", LIBRARY)
    monkeypatch.setenv("PKCS11SPY_OUTPUT", str(path))
    start = path.stat().st_size if path.exists() else 0
    return lambda: [
        line.split(": ")[1].strip()
        for line in path.read_text()[start:].splitlines()
        if ": C_" in line
    ]


def write_pem(path: Path, private_key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> Path:
    path.write_bytes(private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


def token(label: str) -> Token:
    in_this_process()
    return pkcs11_token.find_token(pkcs11_token.load_library(LIBRARY), Pkcs11Uri(token=label))


def library_call(name: str, *arguments: int | None) -> None:
    """Call the library behind the key's back."""
    function = getattr(ctypes.CDLL(LIBRARY), name)
    function.restype = ctypes.c_ulong
    assert function(*(a if a is None else ctypes.c_ulong(a) for a in arguments)) == 0


def restart_library() -> None:
    library_call("C_Finalize", None)
    pkcs11_token.initialize(LIBRARY)


def logged_in(label: str) -> bool:
    """Whether this process is logged in to a token: only then private objects are seen."""
    with contextlib.closing(token(label).open()) as session:
        return bool(list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})))


def refusal(where: str, pin: str | None = PIN) -> str:
    with pytest.raises(KeyOpenError) as refused:
        Pkcs11().open(where, Secret(pin.encode()) if pin is not None else None)
    assert pin is None or pin not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
    return str(refused.value)


def big(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def store_private(session: Session, private_key: rsa.RSAPrivateKey, **more: object) -> None:
    """Store a private key alone, with attributes by their names."""
    numbers = private_key.private_numbers()
    attributes = {
        Attribute.CLASS: ObjectClass.PRIVATE_KEY,
        Attribute.KEY_TYPE: KeyType.RSA,
        Attribute.TOKEN: True,
        Attribute.PRIVATE: True,
        Attribute.DECRYPT: True,
        Attribute.MODULUS: big(numbers.public_numbers.n),
        Attribute.PUBLIC_EXPONENT: big(numbers.public_numbers.e),
        Attribute.PRIVATE_EXPONENT: big(numbers.d),
        Attribute.PRIME_1: big(numbers.p),
        Attribute.PRIME_2: big(numbers.q),
        Attribute.EXPONENT_1: big(numbers.dmp1),
        Attribute.EXPONENT_2: big(numbers.dmq1),
        Attribute.COEFFICIENT: big(numbers.iqmp),
    }
    attributes |= {Attribute[name]: value for name, value in more.items()}
    session.create_object({each: value for each, value in attributes.items() if value is not None})


# The same key as a file


@pytest.mark.parametrize("size", [16, 24, 32])
def test_a_key_opens_what_the_same_key_in_a_file_has_encrypted_and_the_other_way_round(
    open_key: OpenKey, stored: str, key: PemKey, size: int
) -> None:
    payload = build_file_key(FileKey(7, os.urandom(size)))
    in_token = open_key(object=stored)
    assert in_token.signature == key.signature
    assert in_token.decrypt(key.encrypt(payload)) == payload
    assert key.decrypt(in_token.encrypt(payload)) == payload


def test_the_entry_point_leads_to_the_module() -> None:
    assert isinstance(key_module("pkcs11"), Pkcs11)


def test_a_key_is_found_by_label_by_id_by_both_and_by_all_that_names_its_token(
    open_key: OpenKey, stored: str
) -> None:
    serial = token("first").serial.decode()
    found = [
        open_key(object=stored),
        open_key(id="%01"),
        open_key(object=stored, id="%01", type="private"),
        open_key(object=stored, serial=serial, manufacturer="SoftHSM project", model="SoftHSM v2"),
    ]
    assert len({each.signature for each in found}) == 1


def test_a_token_in_the_keyring_opens_the_key_again(open_key: OpenKey, stored: str) -> None:
    module, where = Pkcs11(), location(token="first", object=stored)
    key = module.open(*module.read_blob(module.build_blob(where, Secret(PIN.encode()))))
    key.close()
    assert key.signature == open_key(object=stored).signature


def test_a_location_is_absolute_as_it_is(tmp_path: Path) -> None:
    where = location(token="first", object="a")
    assert Pkcs11().absolute(where, tmp_path) == where


# PINs


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


# Several keys of one token


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


# What is not there, or there more than once


def test_no_such_token_says_what_was_sought_and_which_there_are(hsm: SoftHsm) -> None:
    said = refusal(location(token="third", serial="77", object="a"))
    assert "'third'" in said
    assert "'77'" in said
    assert "'first'" in said
    assert "'second'" in said


def test_several_tokens_are_listed_with_what_tells_them_apart(hsm: SoftHsm) -> None:
    said = refusal(location(token="twins", object="a"))
    assert "several tokens" in said
    assert said.count("'twins' (serial ") == 2
    assert "'first'" not in said


def test_no_such_key_says_what_was_sought_and_which_there_are(stored: str, hsm: SoftHsm) -> None:
    said = refusal(location(token="first", object="there is none", id="%7F"))
    assert "no private key is meant by object=there is none;id=%7F" in said
    assert f"object={stored};id=%01" in said


def test_several_keys_are_listed_with_what_tells_them_apart(
    hsm: SoftHsm, officer: Session, private_key: rsa.RSAPrivateKey, label: str
) -> None:
    for key_id in (b"\x21", b"\x22"):
        store_private(officer, private_key, LABEL=label, ID=key_id)
    said = refusal(location(token="first", object=label))
    assert "several private keys are meant" in said
    assert f"object={label};id=%21; object={label};id=%22" in said


@pytest.mark.parametrize(
    ("library", "word"),
    [
        ("/there/is/none.so", "No such file"),
        ("there-is-none.so", "No such file"),
        ("libcrypto.so.3", "C_GetFunctionList"),
    ],
)
def test_a_library_that_is_none_is_named(library: str, word: str) -> None:
    said = refusal(location(library, token="first", object="a"))
    assert library in said
    assert word in said


def test_a_location_that_is_no_uri_is_refused_with_the_reason() -> None:
    assert "pin-source" in refusal("pkcs11:token=first?pin-value=1234")


# Keys of other kinds


def test_a_key_that_is_not_rsa_is_refused(hsm: SoftHsm, tmp_path: Path, label: str) -> None:
    pem = write_pem(tmp_path / "ec.pem", ec.generate_private_key(ec.SECP256R1()))
    hsm.import_key(pem, "first", label, "31")
    assert "not RSA" in refusal(location(token="first", object=label))


def test_a_key_that_may_not_decrypt_is_refused(
    officer: Session, private_key: rsa.RSAPrivateKey, label: str
) -> None:
    store_private(officer, private_key, LABEL=label, DECRYPT=False, SIGN=True)
    assert "CKA_DECRYPT" in refusal(location(token="first", object=label))


def test_a_key_that_wants_its_pin_each_time_gets_it(
    open_key: OpenKey, hsm: SoftHsm, private_key: rsa.RSAPrivateKey, label: str
) -> None:
    with token("first").open(rw=True, user_pin=PIN) as session:
        store_private(session, private_key, LABEL=label, ALWAYS_AUTHENTICATE=True)
    key = open_key(object=label)
    assert [key.decrypt(key.encrypt(PAYLOAD)) for _ in range(2)] == [PAYLOAD] * 2


def store_public(session: Session, public_key: rsa.RSAPublicKey, key_id: bytes) -> None:
    numbers = public_key.public_numbers()
    session.create_object(
        {
            Attribute.CLASS: ObjectClass.PUBLIC_KEY,
            Attribute.KEY_TYPE: KeyType.RSA,
            Attribute.TOKEN: True,
            Attribute.PRIVATE: False,
            Attribute.ID: key_id,
            Attribute.MODULUS: big(numbers.n),
            Attribute.PUBLIC_EXPONENT: big(numbers.e),
        }
    )


def store_certificate(session: Session, private_key: rsa.RSAPrivateKey, key_id: bytes) -> None:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a key")])
    day = datetime.datetime(2024, 1, 1)
    builder = x509.CertificateBuilder(name, name, private_key.public_key(), 1, day, day)
    session.create_object(
        {
            Attribute.CLASS: ObjectClass.CERTIFICATE,
            Attribute.CERTIFICATE_TYPE: pkcs11.CertificateType.X_509,
            Attribute.TOKEN: True,
            Attribute.PRIVATE: False,
            Attribute.ID: key_id,
            Attribute.SUBJECT: name.public_bytes(),
            Attribute.VALUE: builder.sign(private_key, SHA256()).public_bytes(Encoding.DER),
        }
    )


def public_key_beside(session: Session, private_key: rsa.RSAPrivateKey, key_id: bytes) -> bool:
    """Whether the public key is found for a private key that does not show its exponent.

    The key is not opened, since SoftHSM crashes when it decrypts with such a key.
    """
    store_private(session, private_key, ID=key_id, PUBLIC_EXPONENT=None)
    wanted = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.ID: key_id}
    (found,) = session.get_objects(wanted)
    public_key = public_key_of(session, found, Pkcs11Uri(id=key_id))
    return public_key.public_numbers() == private_key.public_key().public_numbers()


def test_the_public_key_is_that_of_an_object_with_the_same_id_where_the_private_shows_none(
    officer: Session, private_key: rsa.RSAPrivateKey
) -> None:
    store_public(officer, private_key.public_key(), b"\x41")
    assert public_key_beside(officer, private_key, b"\x41")


def test_the_public_key_is_that_of_a_certificate_with_the_same_id_where_there_is_no_other(
    officer: Session, private_key: rsa.RSAPrivateKey
) -> None:
    store_certificate(officer, private_key, b"\x42")
    assert public_key_beside(officer, private_key, b"\x42")


def test_a_public_key_of_another_pair_or_of_another_id_is_not_taken(
    officer: Session, private_key: rsa.RSAPrivateKey
) -> None:
    store_public(officer, rsa.generate_private_key(65537, 2048).public_key(), b"\x43")
    store_public(officer, private_key.public_key(), b"\x44")
    with pytest.raises(KeyOpenError, match="store the public key"):
        public_key_beside(officer, private_key, b"\x43")


def test_a_private_key_that_is_not_what_it_shows_is_refused(
    officer: Session, private_key: rsa.RSAPrivateKey, label: str
) -> None:
    other = rsa.generate_private_key(65537, 2048).private_numbers()
    store_private(
        officer,
        private_key,
        LABEL=label,
        PRIVATE_EXPONENT=big(other.d),
        PRIME_1=big(other.p),
        PRIME_2=big(other.q),
        EXPONENT_1=big(other.dmp1),
        EXPONENT_2=big(other.dmq1),
        COEFFICIENT=big(other.iqmp),
    )
    assert "of no use" in refusal(location(token="first", object=label))


# Failures, and sessions that are lost


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


# What people see


def test_a_key_is_described_without_what_leads_to_its_pin(
    open_key: OpenKey, stored: str, tmp_path: Path
) -> None:
    source = tmp_path / "pin"
    source.write_text(PIN)
    key = open_key(pin=None, object=stored, id="%01", pin_source=str(source))
    where = f"pkcs11:token=first;object={stored};id=%01?module-path={LIBRARY}"
    assert key.describe() == f"RSA, 2048 bits, {where}"
    assert PIN not in repr(vars(key))


def test_a_store_is_a_token_of_a_library(open_key: OpenKey, stored: str) -> None:
    key = open_key(object=stored)
    assert key.store == f"pkcs11 first, {os.path.realpath(LIBRARY)}"
    assert key.store == open_key(id="%01").store


# Making keys


def test_a_key_is_made_and_can_be_used(open_key: OpenKey, label: str) -> None:
    Pkcs11().generate(location(token="first", object=label), Secret(PIN.encode()), 1024)
    key = open_key(object=label)
    assert key.bits == 1024
    assert key.decrypt(key.encrypt(PAYLOAD)) == PAYLOAD


def test_a_key_is_made_with_the_pin_from_the_file_and_the_id_of_the_uri(
    open_key: OpenKey, tmp_path: Path
) -> None:
    source = tmp_path / "pin"
    source.write_text(PIN)
    where = {"token": "first", "id": "%71", "pin_source": str(source)}
    Pkcs11().generate(location(**where), None, 1024)
    assert open_key(id="%71").bits == 1024


def test_a_made_key_decrypts_only_and_stays_in_its_token(hsm: SoftHsm, label: str) -> None:
    Pkcs11().generate(location(token="first", object=label), Secret(PIN.encode()), 1024)
    may = {
        ObjectClass.PRIVATE_KEY: ("DECRYPT", "SIGN", "UNWRAP", "DERIVE", "EXTRACTABLE"),
        ObjectClass.PUBLIC_KEY: ("ENCRYPT", "VERIFY", "WRAP", "PRIVATE"),
    }
    with token("first").open(user_pin=PIN) as session:
        does, ids = set(), set()
        for kind, names in may.items():
            (found,) = session.get_objects({Attribute.CLASS: kind, Attribute.LABEL: label})
            does |= {name for name in names if found[Attribute[name]]}
            ids.add(found[Attribute.ID])
            if kind == ObjectClass.PRIVATE_KEY:
                assert found[Attribute.SENSITIVE]
                assert found[Attribute.PRIVATE]
    assert does == {"DECRYPT", "ENCRYPT"}
    assert [len(each) for each in ids] == [8]


@pytest.mark.parametrize(
    "named", [{"object": "stored"}, {"id": "%01"}, {"object": "new", "id": "%01"}]
)
def test_nothing_is_made_where_an_object_has_the_label_or_the_id(
    stored: str, hsm: SoftHsm, named: dict[str, str]
) -> None:
    before = hsm.tool("first", "--list-objects")
    with pytest.raises(KeyOpenError, match="already"):
        Pkcs11().generate(location(token="first", **named), Secret(PIN.encode()), 1024)
    assert hsm.tool("first", "--list-objects") == before


def test_a_key_without_a_name_is_not_made(hsm: SoftHsm) -> None:
    with pytest.raises(KeyOpenError, match="name"):
        Pkcs11().generate(location(token="first"), Secret(PIN.encode()), 1024)


def test_a_size_that_the_token_does_not_make_is_named(hsm: SoftHsm, label: str) -> None:
    with pytest.raises(KeyOpenError, match="100 bits"):
        Pkcs11().generate(location(token="first", object=label), Secret(PIN.encode()), 100)
    assert not logged_in("first")


# All libraries that p11-kit knows

FOUND_BY_P11_KIT = """
import sys
from daemon_client.modules.pkcs11 import Pkcs11
from daemon_client.secret import Secret

direct, by_proxy = (Pkcs11().open(where, Secret(sys.argv[1].encode())) for where in sys.argv[2:])
assert by_proxy.decrypt(direct.encrypt(b"a payload")) == b"a payload"
direct.close()
assert by_proxy.decrypt(direct.encrypt(b"a payload")) == b"a payload"
print(by_proxy.store, by_proxy.signature == direct.signature)
"""


def test_without_a_library_in_the_uri_the_token_is_found_by_p11_kit(
    hsm: SoftHsm, stored: str
) -> None:
    direct = location(token="first", object=stored)
    by_proxy = location(None, token="first", object=stored)
    said = hsm.run(sys.executable, "-W", "error", "-c", FOUND_BY_P11_KIT, PIN, direct, by_proxy)
    assert said == "pkcs11 first, p11-kit-proxy.so True\n"
