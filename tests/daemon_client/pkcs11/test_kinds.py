"""Keys of every kind, and keys that are made."""

import datetime
from pathlib import Path

import pkcs11
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from pkcs11 import Attribute, KeyType, ObjectClass
from pkcs11.types import Session

from daemon_client.key import KeyOpenError
from daemon_client.modules.pkcs11 import Pkcs11
from daemon_client.modules.pkcs11_object import public_key_of
from daemon_client.modules.pkcs11_uri import Pkcs11Uri
from daemon_client.secret import Secret
from tests.daemon_client.pkcs11.softhsm import PIN, SoftHsm, location
from tests.daemon_client.pkcs11.tokens import (
    PAYLOAD,
    OpenKey,
    big,
    logged_in,
    refusal,
    store_private,
    token,
    write_pem,
)


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
