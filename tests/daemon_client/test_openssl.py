import hashlib
import struct
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from daemon_client.key import KeyOpenError, KeyOperationError, WrongPassphraseError
from daemon_client.modules.openssl import PEM_SIZE_MAX, OpenSsl, PemKey, load_key
from daemon_client.modules.rsa import signature_of
from daemon_client.secret import Secret

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def write_pem(
    path: Path,
    private_key: PrivateKey,
    form: PrivateFormat = PrivateFormat.PKCS8,
    encryption: KeySerializationEncryption | None = None,
) -> Path:
    path.write_bytes(private_key.private_bytes(Encoding.PEM, form, encryption or NoEncryption()))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(KeyOpenError) as refused:
        load_key(path)
    assert str(path) in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(("bits", "exponent"), [(1024, 3), (1032, 65537), (2048, 65537)])
def test_a_signature_is_the_fingerprint_of_the_openssl_key_module(bits: int, exponent: int) -> None:
    private_key = rsa.generate_private_key(exponent, bits)
    n = private_key.public_key().public_numbers().n
    modulus = bytes.fromhex(f"{n:x}".zfill(bits // 4))
    public = bytes.fromhex(f"{exponent:x}".zfill(6 if exponent > 255 else 2))
    data = struct.pack(">BHBIBH", 0x99, 10 + len(modulus) + len(public), 4, 0, 2, bits) + modulus
    data += struct.pack(">H", len(f"{exponent:b}")) + public
    assert PemKey(private_key, "here").signature == hashlib.sha1(data).digest()[:8].hex()


def test_a_known_key_has_its_known_signature() -> None:
    # xxd -r -p | sha1sum of 99008d 04 00000000 02 0400 c1 00..00 01 0011 010001
    modulus = int.from_bytes(b"\xc1" + bytes(126) + b"\x01", "big")
    public_key = rsa.RSAPublicNumbers(65537, modulus).public_key()
    assert signature_of(public_key) == "87c08f6bd61dd04e"


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_pkcs1_and_pkcs8_files_are_the_same_key(
    tmp_path: Path, private_key: rsa.RSAPrivateKey, form: PrivateFormat
) -> None:
    loaded = load_key(write_pem(tmp_path / "key.pem", private_key, form))
    assert loaded.signature == PemKey(private_key, "here").signature
    assert loaded.bits == 2048


def test_a_key_encrypts_with_oaep_sha1_and_no_label(
    key: PemKey, private_key: rsa.RSAPrivateKey
) -> None:
    oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
    assert private_key.decrypt(key.encrypt(b"a payload"), oaep) == b"a payload"
    assert key.decrypt(private_key.public_key().encrypt(b"a payload", oaep)) == b"a payload"


def test_two_encryptions_of_a_payload_differ(key: PemKey) -> None:
    assert key.encrypt(b"a payload") != key.encrypt(b"a payload")


def test_what_a_key_cannot_do_is_an_error_that_tells_nothing(
    key: PemKey, other_key: PemKey
) -> None:
    payload = b"secret" * 12
    with pytest.raises(KeyOperationError) as refused:
        other_key.encrypt(payload + bytes(100))
    assert "secret" not in str(refused.value)
    with pytest.raises(KeyOperationError):
        key.decrypt(other_key.encrypt(payload))
    with pytest.raises(KeyOperationError):
        key.decrypt(b"")


def test_a_key_shows_its_signature_and_nothing_else(key: PemKey) -> None:
    assert repr(key) == f"PemKey({key.signature}: RSA, 2048 bits, made for tests)"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "none.pem")


def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert "Is a directory" in refusal(tmp_path)


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_an_encrypted_file_is_opened_with_its_passphrase_alone(
    tmp_path: Path, private_key: rsa.RSAPrivateKey, form: PrivateFormat
) -> None:
    path = tmp_path / "key.pem"
    write_pem(path, private_key, form, BestAvailableEncryption(b"pass word"))
    opened = load_key(path, Secret(b"pass word"))
    assert opened.signature == signature_of(private_key.public_key())
    with pytest.raises(WrongPassphraseError, match="--passphrase"):
        load_key(path)
    with pytest.raises(WrongPassphraseError, match="passphrase is wrong") as refused:
        load_key(path, Secret(b"passwort"))
    assert "passwort" not in repr(refused.value.__context__) + str(refused.value)


def test_a_passphrase_that_is_not_needed_does_no_harm(
    tmp_path: Path, private_key: rsa.RSAPrivateKey
) -> None:
    path = write_pem(tmp_path / "key.pem", private_key)
    assert load_key(path, Secret(b"unneeded")).bits == 2048


@pytest.mark.parametrize("passphrase", [None, b"pass word"])
def test_a_key_that_is_generated_is_private_and_nothing_is_overwritten(
    tmp_path: Path, passphrase: bytes | None
) -> None:
    path = tmp_path / "key.pem"
    secret = None if passphrase is None else Secret(passphrase)
    OpenSsl().generate(str(path), secret, 2048)
    assert load_key(path, secret).bits == 2048
    assert path.stat().st_mode & 0o777 == 0o600
    assert (b"ENCRYPTED" in path.read_bytes()) == (passphrase is not None)
    before = path.read_bytes()
    with pytest.raises(KeyOpenError, match="exists already"):
        OpenSsl().generate(str(path), secret, 2048)
    assert path.read_bytes() == before


def test_a_key_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    with pytest.raises(KeyOpenError, match="no key of 7 bits"):
        OpenSsl().generate(str(tmp_path / "key.pem"), None, 7)
    with pytest.raises(KeyOpenError, match="No such file or directory"):
        OpenSsl().generate(str(tmp_path / "none" / "key.pem"), None, 2048)


def test_a_blob_is_that_of_ecryptfsd() -> None:
    blob = OpenSsl().build_blob("/k.pem", Secret(b"pw"))
    assert blob == b"\x07\x00/k.pem\x00" + b"\x03\x00pw\x00"
    location, passphrase = OpenSsl().read_blob(blob + b"what is behind it is ignored")
    assert passphrase is not None
    assert (location, bytes(passphrase.octets)) == ("/k.pem", b"pw")
    assert OpenSsl().build_blob("/k.pem", None) == b"\x07\x00/k.pem\x00\x01\x00\x00"


@given(st.binary(max_size=40))
def test_no_blob_raises_anything_but_that_it_is_none(blob: bytes) -> None:
    try:
        location, passphrase = OpenSsl().read_blob(blob)
    except KeyOpenError:
        return
    assert location.encode() in blob
    assert passphrase is None or bytes(passphrase.octets) in blob


def test_what_does_not_fit_into_a_blob_is_refused() -> None:
    for location in ("/a\0b", "/" + "a" * 0xFFFF):
        with pytest.raises(KeyOpenError, match="free of NULs"):
            OpenSsl().build_blob(location, None)


@pytest.mark.parametrize("kind", [ec.SECP256R1, ed25519.Ed25519PrivateKey])
def test_a_key_that_is_not_rsa_is_refused(tmp_path: Path, kind: type) -> None:
    private_key = ec.generate_private_key(kind()) if kind is ec.SECP256R1 else kind.generate()  # type: ignore[attr-defined]
    assert "not RSA" in refusal(write_pem(tmp_path / "key.pem", private_key))


def test_a_public_key_is_refused(tmp_path: Path, private_key: rsa.RSAPrivateKey) -> None:
    path = tmp_path / "public.pem"
    form = PublicFormat.SubjectPublicKeyInfo
    path.write_bytes(private_key.public_key().public_bytes(Encoding.PEM, form))
    assert "no private key" in refusal(path)


@pytest.mark.parametrize("content", [b"", b"not a key", b"\xff" * PEM_SIZE_MAX])
def test_a_file_that_is_no_pem_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    assert "no private key" in refusal(path)


def test_a_file_too_long_for_a_key_is_not_read_to_its_end() -> None:
    assert "too long" in refusal(Path("/dev/zero"))


def test_a_damaged_key_is_refused_without_its_octets(
    tmp_path: Path, private_key: rsa.RSAPrivateKey
) -> None:
    path = write_pem(tmp_path / "key.pem", private_key)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *lines[5:]]))
    said = refusal(path)
    assert not any(line[:16] in said for line in lines[1:-1])
