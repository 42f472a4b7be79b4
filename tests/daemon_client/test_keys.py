from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from daemon_client.key import KeyOpenError
from daemon_client.modules.openssl import PemKey
from daemon_client.modules.rsa import signature_of
from daemon_client.secret import Secret
from daemon_client.sources.config import Config
from daemon_client.sources.directory import KeyDirectory
from daemon_client.sources.keys import Keys, references
from daemon_client.sources.reference import KeyReference
from daemon_client.sources.tokens import TokenKey, add_token
from tests.daemon_client.test_keyring import removed_in_the_end
from tests.daemon_client.test_secret import PASSPHRASE, everything_in
from tests.daemon_client.third_party import Shelf, installed_shelf

A, B = (KeyReference("shelf", f"shelf:{name}") for name in "ab")


@pytest.fixture
def shelf(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    private_key: rsa.RSAPrivateKey,
    other_key: PemKey,
) -> type[Shelf]:
    """With two keys, A and B, of which neither has a passphrase."""
    shelf = installed_shelf(tmp_path, monkeypatch)
    shelf.keys[A.location] = private_key, None
    shelf.keys[B.location] = other_key._private_key, None
    return shelf


@pytest.fixture
def directory(tmp_path: Path) -> KeyDirectory:
    return KeyDirectory(tmp_path / "keys")


def config(directory: KeyDirectory, *keys: KeyReference, keyring: bool = False) -> Config:
    return Config(directory.path, keyring=keyring, keys=keys)


def location(keys: Keys, signature: str) -> str:
    found = keys.find(signature)
    assert found is not None
    return found.describe().rpartition(" ")[2]


def refusal(config: Config, previous: Keys | None = None) -> list[str]:
    with pytest.raises(KeyOpenError) as refused:
        Keys.load(config, previous)
    assert PASSPHRASE not in everything_in(refused.value)
    return str(refused.value).splitlines()


def test_keys_of_the_configuration_and_of_the_directory_are_found(
    shelf: type[Shelf], directory: KeyDirectory, key: PemKey, other_key: PemKey
) -> None:
    directory.add(other_key.signature, B)
    keys = Keys.load(config(directory, A))
    assert location(keys, key.signature) == "shelf:a"
    assert location(keys, other_key.signature) == "shelf:b"
    assert keys.find("0" * 16) is None
    assert [each.signature for each in keys] == [key.signature, other_key.signature]


def test_the_configuration_comes_before_the_directory_and_that_before_the_keyring(
    shelf: type[Shelf], directory: KeyDirectory, private_key: rsa.RSAPrivateKey, key: PemKey
) -> None:
    signature = key.signature
    for name in ("given", "first", "listed", "token"):
        shelf.keys[f"shelf:{name}"] = private_key, None
    with removed_in_the_end(signature):
        add_token(KeyReference("shelf", "shelf:token"), signature, None)
        keys = Keys.load(config(directory, keyring=True))
        found = keys.find(signature)
        assert isinstance(found, TokenKey)
        assert found.open().describe().endswith("shelf:token")
        keys.close_all_but(None)
        directory.add(signature, KeyReference("shelf", "shelf:listed"))
        keys = Keys.load(config(directory, keyring=True))
        assert location(keys, signature) == "shelf:listed"
        given = (KeyReference("shelf", "shelf:first"), KeyReference("shelf", "shelf:given"))
        keys = Keys.load(config(directory, *given, keyring=True))
        assert location(keys, signature) == "shelf:first"
        assert [each.signature for each in keys] == [signature]


def test_the_keyring_is_left_alone_where_it_is_not_wanted(
    shelf: type[Shelf], directory: KeyDirectory, key: PemKey
) -> None:
    with removed_in_the_end(key.signature):
        add_token(A, key.signature, None)
        assert Keys.load(config(directory)).find(key.signature) is None
        assert Keys.load(config(directory, keyring=True)).find(key.signature) is not None


def test_a_reference_that_is_given_twice_is_opened_once(
    shelf: type[Shelf], directory: KeyDirectory, key: PemKey
) -> None:
    directory.add(key.signature, A)
    Keys.load(config(directory, A, A))
    assert shelf.tries == 1


def test_every_fault_has_a_line_and_nothing_is_left_open(
    shelf: type[Shelf], directory: KeyDirectory, tmp_path: Path, other_key: PemKey
) -> None:
    locked = KeyReference("shelf", "shelf:locked", f"file:{tmp_path}/pin")
    shelf.keys[locked.location] = other_key._private_key, b"another one"
    (tmp_path / "pin").write_text(PASSPHRASE)
    directory.add("0" * 16, B)
    none, unread = KeyReference("shelf", "shelf:none"), KeyReference("shelf", "shelf:a", "fd:999")
    assert refusal(config(directory, none, A, locked, unread)) == [
        "there is no shelf:none",
        "the passphrase of shelf:locked is wrong",
        "shelf shelf:a: cannot read the passphrase from descriptor 999: Bad file descriptor",
        f"the signature is {other_key.signature}, not '{'0' * 16}' as expected: "
        "RSA, 1024 bits, shelf:b",
    ]
    assert len(shelf.opened) == 2
    assert all(each.closed.is_set() for each in shelf.opened)


def test_a_wrong_passphrase_is_tried_once_though_its_key_is_named_twice(
    shelf: type[Shelf], directory: KeyDirectory, tmp_path: Path, private_key: rsa.RSAPrivateKey
) -> None:
    locked = KeyReference("shelf", "shelf:locked", f"file:{tmp_path}/pin")
    shelf.keys[locked.location] = private_key, b"another one"
    (tmp_path / "pin").write_text(PASSPHRASE)
    directory.add(signature_of(private_key.public_key()), locked)
    assert refusal(config(directory, locked, locked)) == ["the passphrase of shelf:locked is wrong"]
    assert shelf.tries == 1


def test_a_directory_that_is_not_in_order_opens_no_key(
    shelf: type[Shelf], directory: KeyDirectory
) -> None:
    directory.path.mkdir()
    (directory.path / "key.toml").touch()
    assert "not named by a signature" in refusal(config(directory, A))[0]
    assert shelf.tries == 0


def test_closing_closes_all(shelf: type[Shelf], directory: KeyDirectory) -> None:
    keys = Keys.load(config(directory, A, B))
    assert not any(each.closed.is_set() for each in shelf.opened)
    keys.close_all_but(None)
    assert [each.closed.is_set() for each in shelf.opened] == [True, True]


def test_a_reload_opens_keys_anew_and_takes_over_those_that_it_cannot(
    shelf: type[Shelf], directory: KeyDirectory, tmp_path: Path, key: PemKey
) -> None:
    once = KeyReference("shelf", "shelf:once", "fd:999")  # nothing can be read from there again
    shelf.keys[once.location] = shelf.keys[B.location]
    old = Keys({A: A.unlock(), once: once.open(Secret(b""))}, None)
    new = Keys.load(config(directory, A, once), old)
    first, kept, again = shelf.opened
    assert list(new) == [again, kept]
    old.close_all_but(new)
    assert [each.closed.is_set() for each in (first, kept, again)] == [True, False, False]
    new.close_all_but(None)
    assert kept.closed.is_set()


def test_a_reload_without_a_key_leaves_it_to_be_closed(
    shelf: type[Shelf], directory: KeyDirectory
) -> None:
    once = KeyReference("shelf", "shelf:a", "fd:999")
    old = Keys({once: once.open(None)}, None)
    new = Keys.load(config(directory), old)
    old.close_all_but(new)
    assert list(new) == []
    assert shelf.opened[0].closed.is_set()


def test_a_reload_that_fails_leaves_the_old_keys_open(
    shelf: type[Shelf], directory: KeyDirectory
) -> None:
    once = KeyReference("shelf", "shelf:a", "fd:999")
    old = Keys({once: once.open(None)}, None)
    assert refusal(config(directory, once, B, KeyReference("shelf", "shelf:none")), old) == [
        "there is no shelf:none"
    ]
    kept, again = shelf.opened
    assert not kept.closed.is_set()
    assert again.closed.is_set()
    assert list(old) == [kept]


def test_references_say_which_signature_a_file_is_named_by(
    shelf: type[Shelf], directory: KeyDirectory
) -> None:
    directory.add("0" * 16, B)
    assert references(config(directory, A)) == [(A, None), (B, "0" * 16)]
