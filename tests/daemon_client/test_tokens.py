import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, PrivateFormat

from daemon_client.key import Key, KeyOpenError, KeyOperationError, WrongPassphraseError
from daemon_client.modules.openssl import PemKey
from daemon_client.secret import Secret
from daemon_client.sources import keyring
from daemon_client.sources.reference import KeyReference
from daemon_client.sources.tokens import TokenKey, TokenKeys, add_token, parse_token, user_tokens
from ecryptfs_cuse.wire.auth_token import SIZE, PrivateKeyToken, build_private_key_token
from tests.client import PATIENCE
from tests.daemon_client.fresh_key import private_key, signature
from tests.daemon_client.test_openssl import write_pem
from tests.daemon_client.test_secret import PASSPHRASE, everything_in
from tests.daemon_client.third_party import Shelf, ShelfKey, installed_shelf

PAYLOAD = bytes(range(100, 119))


__all__ = ["private_key", "signature"]  # fixtures


@pytest.fixture
def tokens() -> Iterator[TokenKeys]:
    keys = TokenKeys()
    yield keys
    keys.close()


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Shelf]:
    return installed_shelf(tmp_path, monkeypatch)


@pytest.fixture
def pem(tmp_path: Path, private_key: rsa.RSAPrivateKey) -> KeyReference:
    """An encrypted PEM file."""
    encryption = BestAvailableEncryption(PASSPHRASE.encode())
    path = write_pem(tmp_path / "key.pem", private_key, PrivateFormat.PKCS8, encryption)
    return KeyReference("openssl", str(path))


def put(signature: str, token: PrivateKeyToken) -> None:
    keyring.add(signature, build_private_key_token(token))


def found(tokens: TokenKeys, signature: str) -> TokenKey:
    key = tokens.find(signature)
    assert isinstance(key, TokenKey)
    return key


def works(key: Key) -> bool:
    return key.decrypt(key.encrypt(PAYLOAD)) == PAYLOAD


def wait_closed(key: ShelfKey) -> None:
    """Once its token is seen to be gone, the key is closed in a thread."""
    assert key.closed.wait(PATIENCE)


def refusal(tokens: TokenKeys, signature: str) -> str:
    with pytest.raises(KeyOpenError) as refused:
        tokens.find(signature)
    assert PASSPHRASE not in everything_in(refused.value)
    return str(refused.value)


def failure(key: Key) -> str:
    said = set()
    for operation in (key.encrypt, key.decrypt):
        with pytest.raises(KeyOperationError) as refused:
            operation(PAYLOAD)
        assert PASSPHRASE not in everything_in(refused.value)
        said.add(str(refused.value))
    assert len(said) == 1
    return said.pop()


def reachable(root: object) -> Iterator[object]:
    """Everything that is kept because of an object, but programs."""
    seen, todo = {id(root)}, [root]
    while todo:
        each = todo.pop()
        yield each
        for referent in gc.get_referents(each):
            if id(referent) not in seen and not isinstance(
                referent, type | ModuleType | FunctionType
            ):
                seen.add(id(referent))
                todo.append(referent)


def keeps_passphrase(root: object) -> bool:
    return any(
        PASSPHRASE.encode() in bytes(each)
        for each in reachable(root)
        if isinstance(each, bytes | bytearray)
    )


def test_a_token_counts_from_when_it_is_added_until_it_is_removed(
    tokens: TokenKeys, signature: str, pem: KeyReference
) -> None:
    assert tokens.find(signature) is None
    add_token(pem, signature, Secret(PASSPHRASE.encode()))
    key = found(tokens, signature)
    assert key.signature == signature
    assert works(key)
    assert found(tokens, signature) is key
    serial = keyring.find(signature)
    assert serial is not None
    keyring.remove(serial)
    assert tokens.find(signature) is None
    assert "has been removed or changed" in failure(key)


def test_a_token_that_changes_is_another_key_and_the_old_one_is_closed(
    tokens: TokenKeys, signature: str, shelf: type[Shelf], private_key: rsa.RSAPrivateKey
) -> None:
    shelf.keys["shelf:old"] = shelf.keys["shelf:new"] = private_key, None
    add_token(KeyReference("shelf", "shelf:old"), signature, None)
    old = found(tokens, signature)
    assert works(old)
    assert old.describe() == "RSA, 1024 bits, shelf:old"
    add_token(KeyReference("shelf", "shelf:new"), signature, None)
    new = found(tokens, signature)
    assert works(new)
    assert new.describe() == "RSA, 1024 bits, shelf:new"
    wait_closed(shelf.opened[0])
    assert not shelf.opened[1].closed.is_set()
    failure(old)
    assert len(shelf.opened) == 2


def test_a_key_is_opened_when_it_is_first_used_and_once_only(
    tokens: TokenKeys, signature: str, shelf: type[Shelf], private_key: rsa.RSAPrivateKey
) -> None:
    shelf.keys["shelf:a"] = private_key, None
    add_token(KeyReference("shelf", "shelf:a"), signature, None)
    key = found(tokens, signature)
    assert (key.store, key.describe(), shelf.tries) == ("shelf", "a token for shelf", 0)
    users = [threading.Thread(target=works, args=(key,)) for _ in range(5)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert shelf.tries == 1
    assert (key.store, key.describe()) == ("openssl", "RSA, 1024 bits, shelf:a")
    assert repr(key) == f"TokenKey({signature}: RSA, 1024 bits, shelf:a)"
    tokens.close()
    assert shelf.opened[0].closed.is_set()


def test_who_looks_for_a_key_does_not_wait_for_one_that_is_being_opened(
    tokens: TokenKeys,
    signature: str,
    shelf: type[Shelf],
    private_key: rsa.RSAPrivateKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entered, may_open = threading.Event(), threading.Event()
    open_at_once = shelf.open

    def open_slowly(self: Shelf, location: str, passphrase: Secret | None) -> ShelfKey:
        entered.set()
        assert may_open.wait(PATIENCE)
        return open_at_once(self, location, passphrase)

    monkeypatch.setattr(shelf, "open", open_slowly)
    shelf.keys["shelf:a"] = private_key, None
    add_token(KeyReference("shelf", "shelf:a"), signature, None)
    user = threading.Thread(target=found(tokens, signature).encrypt, args=(PAYLOAD,))
    user.start()
    try:
        assert entered.wait(PATIENCE)
        serial = keyring.find(signature)
        assert serial is not None
        keyring.remove(serial)
        looked = threading.Thread(target=tokens.find, args=(signature,), daemon=True)
        looked.start()
        looked.join(PATIENCE)
        assert not looked.is_alive()
    finally:
        may_open.set()
        user.join()
    wait_closed(shelf.opened[0])


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"not a token", "a token has at least 740 octets, not 11"),
        (bytes(SIZE), "version 0x0000"),
        (b"\x04\x00\x00\x00" + bytes(SIZE), "is of a passphrase, which needs no key daemon"),
        (b"\x04\x00\x02\x00" + bytes(SIZE), "unknown type 2"),
    ],
)
def test_what_is_no_token_of_a_private_key_is_refused(
    tokens: TokenKeys, signature: str, payload: bytes, why: str
) -> None:
    keyring.add(signature, payload)
    said = refusal(tokens, signature)
    assert said.startswith(f"the keyring's token {signature!r}: ")
    assert why in said
    assert signature not in [entry.description for entry, _ in user_tokens()]


def test_a_token_that_becomes_malformed_is_forgotten_until_it_is_well_again(
    tokens: TokenKeys, signature: str, shelf: type[Shelf], private_key: rsa.RSAPrivateKey
) -> None:
    shelf.keys["shelf:a"] = private_key, None
    add_token(KeyReference("shelf", "shelf:a"), signature, None)
    assert works(found(tokens, signature))
    keyring.add(signature, b"rubbish")
    refusal(tokens, signature)
    wait_closed(shelf.opened[0])
    add_token(KeyReference("shelf", "shelf:a"), signature, None)
    assert works(found(tokens, signature))


def test_a_token_with_another_signature_inside_is_refused(
    tokens: TokenKeys, signature: str
) -> None:
    put(signature, PrivateKeyToken("0" * 16, "openssl", b""))
    assert f"says it is '{'0' * 16}' inside" in refusal(tokens, signature)
    assert signature not in [entry.description for entry, _ in user_tokens()]


def test_a_token_that_leads_to_a_key_with_another_signature_is_not_used(
    tokens: TokenKeys, signature: str, shelf: type[Shelf], other_key: PemKey
) -> None:
    shelf.keys["shelf:a"] = other_key._private_key, None
    add_token(KeyReference("shelf", "shelf:a"), signature, None)
    said = failure(found(tokens, signature))
    assert said.startswith(f"the signature is {other_key.signature}, not '{signature}'")
    assert all(each.closed.is_set() for each in shelf.opened)


@pytest.mark.parametrize("alias", ["tspi", "gpg", "no such module"])
def test_an_unknown_key_module_is_named(tokens: TokenKeys, signature: str, alias: str) -> None:
    put(signature, PrivateKeyToken(signature, alias, bytes(16)))
    said = failure(found(tokens, signature))
    assert said.startswith(f"there is no key module '{alias}'; there are: openssl")


@pytest.mark.parametrize(
    "blob", [b"", b"\x00\x00", b"\xff\xff/k", b"\x03\x00\xff\xff\x00\x01\x00\x00"]
)
def test_a_blob_that_cannot_be_read_is_refused(
    tokens: TokenKeys, signature: str, blob: bytes
) -> None:
    put(signature, PrivateKeyToken(signature, "openssl", blob))
    assert "the token's" in failure(found(tokens, signature))


@pytest.mark.parametrize("passphrase", [b"a wrong one", None])
def test_a_wrong_passphrase_is_tried_once_until_the_token_changes(
    tokens: TokenKeys,
    signature: str,
    shelf: type[Shelf],
    private_key: rsa.RSAPrivateKey,
    passphrase: bytes | None,
) -> None:
    reference = KeyReference("shelf", "shelf:a")
    shelf.keys["shelf:a"] = private_key, PASSPHRASE.encode()
    add_token(reference, signature, Secret(passphrase) if passphrase else None)
    for _ in range(3):
        assert failure(found(tokens, signature)) == "the passphrase of shelf:a is wrong"
    with pytest.raises(WrongPassphraseError):
        found(tokens, signature).open()
    assert shelf.tries == 1
    add_token(reference, signature, Secret(PASSPHRASE.encode()))
    assert works(found(tokens, signature))
    assert shelf.tries == 2


def test_another_fault_may_have_been_mended_meanwhile(
    tokens: TokenKeys, signature: str, shelf: type[Shelf], private_key: rsa.RSAPrivateKey
) -> None:
    add_token(KeyReference("shelf", "shelf:a"), signature, Secret(PASSPHRASE.encode()))
    key = found(tokens, signature)
    assert failure(key) == "there is no shelf:a"
    shelf.keys["shelf:a"] = private_key, PASSPHRASE.encode()
    assert works(key)


def test_no_passphrase_is_kept_once_a_key_is_open_or_refused(
    tokens: TokenKeys, signature: str, pem: KeyReference
) -> None:
    add_token(pem, signature, Secret(PASSPHRASE.encode()))
    key = found(tokens, signature)
    assert keeps_passphrase(key)  # it is yet to be opened
    assert works(key)
    assert not keeps_passphrase(tokens)
    add_token(pem, signature, Secret(PASSPHRASE.encode() + b", wrong"))
    assert "the passphrase is wrong" in failure(found(tokens, signature))
    assert not keeps_passphrase(tokens)


def test_a_refusal_keeps_no_file_key(tokens: TokenKeys, signature: str, pem: KeyReference) -> None:
    add_token(pem, signature, None)
    key = found(tokens, signature)
    for operation in (key.encrypt, key.decrypt):
        with pytest.raises(KeyOperationError):
            operation(PASSPHRASE.encode())
    assert not keeps_passphrase(tokens)


def test_no_passphrase_is_shown(
    tokens: TokenKeys, signature: str, pem: KeyReference, caplog: pytest.LogCaptureFixture
) -> None:
    add_token(pem, signature, Secret(PASSPHRASE.encode()))
    key = found(tokens, signature)
    entry, token = next(each for each in user_tokens() if each[0].description == signature)
    for shown in (repr(key), key.describe(), repr(token), repr(entry), repr(tokens), caplog.text):
        assert PASSPHRASE not in shown
        assert repr(PASSPHRASE.encode())[2:-1] not in shown


def test_tokens_of_private_keys_are_listed(signature: str, pem: KeyReference) -> None:
    assert signature not in [entry.description for entry, _ in user_tokens()]
    add_token(pem, signature, Secret(b"pw"))
    entry, token = next(each for each in user_tokens() if each[0].description == signature)
    assert entry.serial == keyring.find(signature)
    assert token == parse_token(signature, keyring.read(entry.serial))
    assert (token.signature, token.alias) == (signature, "openssl")


def test_what_does_not_fit_into_a_token_is_refused(signature: str) -> None:
    for location in ("/" + "x" * 32767, "/" + "x" * 0xFFFF):
        with pytest.raises(KeyOpenError) as refused:
            add_token(KeyReference("openssl", location), signature, Secret(PASSPHRASE.encode()))
        assert PASSPHRASE not in everything_in(refused.value)
    assert keyring.find(signature) is None


def test_a_token_cannot_be_found_by_a_name_that_only_begins_like_its_own(
    tokens: TokenKeys, signature: str, pem: KeyReference
) -> None:
    add_token(pem, signature, Secret(PASSPHRASE.encode()))
    assert tokens.find(signature[:-1]) is None
    refusal(tokens, signature + "\0")
