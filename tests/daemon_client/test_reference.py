from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, PrivateFormat

from daemon_client.key import KeyOpenError, WrongPassphraseError
from daemon_client.modules.rsa import signature_of
from daemon_client.sources.reference import KeyReference, from_table, from_text
from tests.daemon_client.test_openssl import write_pem
from tests.daemon_client.test_secret import PASSPHRASE, everything_in
from tests.daemon_client.third_party import installed_shelf


@pytest.fixture(autouse=True)
def in_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed_shelf(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")


@pytest.mark.parametrize(
    ("text", "module", "location"),
    [
        ("key.pem", "openssl", "BASE/key.pem"),
        ("openssl:key.pem", "openssl", "BASE/key.pem"),
        ("openssl:openssl:key.pem", "openssl", "BASE/openssl:key.pem"),
        ("/a/key.pem", "openssl", "/a/key.pem"),
        ("~/key.pem", "openssl", "/home/ada/key.pem"),
        ("no-module:key.pem", "openssl", "BASE/no-module:key.pem"),
        (":key.pem", "openssl", "BASE/:key.pem"),
        ("shelf", "openssl", "BASE/shelf"),
        ("shelf:name", "shelf", "shelf:name"),  # a URI stays whole
    ],
)
def test_a_text_names_a_module_or_else_a_pem_file(
    tmp_path: Path, text: str, module: str, location: str
) -> None:
    reference = from_text(text)
    assert reference == KeyReference(module, location.replace("BASE", str(tmp_path)))


def test_a_table_says_the_same_relative_to_its_file() -> None:
    base = Path("/etc/keys")
    assert from_table({"location": "a.pem"}, base) == KeyReference("openssl", "/etc/keys/a.pem")
    table = {"module": "shelf", "location": "shelf:name", "passphrase": "file:pin"}
    assert from_table(table, base) == KeyReference("shelf", "shelf:name", "file:/etc/keys/pin")


def test_the_file_of_a_passphrase_is_relative_to_the_same_directory(tmp_path: Path) -> None:
    assert from_text("key.pem", "file:pin").passphrase == f"file:{tmp_path}/pin"
    assert from_text("key.pem", "file:~/pin").passphrase == "file:/home/ada/pin"
    assert from_text("key.pem", "credential:pin").passphrase == "credential:pin"


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({}, "a key needs location ="),
        ({"module": "openssl"}, "a key needs location ="),
        ({"location": "a", "pin": PASSPHRASE}, "a key has no 'pin', but: module, location, pass"),
        ({"location": 1}, "location = is followed by a text in quotes"),
        ({"location": ""}, "location = is followed by a text in quotes"),
        ({"location": "a\0b"}, "free of NULs"),
        ({"location": "a", "passphrase": "file:a\0b"}, "free of NULs"),
        ({"location": "a", "module": ["openssl"]}, "module = is followed by"),
        ({"location": "a", "module": "none"}, "there is no key module 'none'; there are: openssl"),
        ({"location": "a", "passphrase": PASSPHRASE}, "what was given is no source"),
        ({"location": "a", "passphrase": f"pass:{PASSPHRASE}"}, "not given by pass:"),
        ({"location": "a", "passphrase": f"pin:{PASSPHRASE}"}, "'pin:...' is no source"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_without_a_passphrase(
    table: dict[str, object], why: str
) -> None:
    with pytest.raises(KeyOpenError) as refused:
        from_table(table, Path("/"))
    assert why in str(refused.value)
    assert PASSPHRASE not in everything_in(refused.value)


def test_a_name_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(KeyOpenError, match=r"key-\\udcff.pem' is not UTF-8"):
        from_text("key-\udcff.pem")
    with pytest.raises(KeyOpenError, match="not UTF-8"):
        from_text("key.pem", "file:\udcff")


@pytest.mark.parametrize(
    ("source", "given_once", "typed"),
    [
        (None, False, False),
        ("file:/pin", False, False),
        ("askpass:program", False, False),
        ("credential:pin", False, False),
        ("fd:3", True, False),
        ("prompt", True, True),
    ],
)
def test_it_knows_which_passphrases_cannot_be_had_again(
    source: str | None, given_once: bool, typed: bool
) -> None:
    reference = KeyReference("openssl", "/key.pem", source)
    assert (reference.is_given_once, reference.is_typed) == (given_once, typed)


def test_it_unlocks_a_key_with_the_passphrase_of_its_source(
    tmp_path: Path, private_key: rsa.RSAPrivateKey
) -> None:
    encryption = BestAvailableEncryption(PASSPHRASE.encode())
    write_pem(tmp_path / "key.pem", private_key, PrivateFormat.PKCS8, encryption)
    (tmp_path / "pin").write_text(PASSPHRASE)
    unlocked = from_text("key.pem", "file:pin").unlock()
    assert unlocked.signature == signature_of(private_key.public_key())
    (tmp_path / "pin").write_text(PASSPHRASE[:-1])
    for reference, why in (
        (from_text("key.pem"), "--passphrase"),
        (from_text("key.pem", "file:pin"), "the passphrase is wrong"),
        (from_text("key.pem", "file:none"), f"openssl {tmp_path}/key.pem: cannot read the passph"),
    ):
        with pytest.raises(WrongPassphraseError) as refused:
            reference.unlock()
        assert why in str(refused.value)
        assert PASSPHRASE[:-1] not in everything_in(refused.value) + repr(reference)


def test_a_module_that_cannot_start_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry_points = next(tmp_path.glob("*.dist-info")) / "entry_points.txt"
    lines = ["none = no_such_package:Keys", "abstract = daemon_client.key:KeyModule"]
    entry_points.write_text("\n".join(["[ecryptfs_keyd.key_modules]", *lines, ""]))
    with pytest.raises(KeyOpenError, match="the key module none needs no_such_package"):
        from_text("none:key")
    with pytest.raises(KeyOpenError, match="the key module abstract cannot start: TypeError"):
        from_text("abstract:key")
