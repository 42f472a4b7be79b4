"""Keys in tokens: what they decrypt, how they are found, what people see of them."""

import os
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from pkcs11.types import Session

from daemon_client.key import key_module
from daemon_client.modules.openssl import PemKey
from daemon_client.modules.pkcs11 import Pkcs11
from daemon_client.secret import Secret
from ecryptfs_cuse.wire.tags import FileKey, build_file_key
from tests.daemon_client.pkcs11.softhsm import LIBRARY, PIN, SoftHsm, location
from tests.daemon_client.pkcs11.tokens import OpenKey, refusal, store_private, token


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
