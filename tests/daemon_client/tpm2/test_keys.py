"""Keys in a TPM: the same as in files, made, refused, named."""

import os
from pathlib import Path

import pytest

from daemon_client.key import Key, KeyOpenError, KeyOperationError
from daemon_client.modules.openssl import PemKey
from daemon_client.modules.tpm2 import FILE_SIZE_MAX, Tpm2
from daemon_client.secret import Secret
from ecryptfs_cuse.wire.ciphers import cipher_code
from ecryptfs_cuse.wire.tags import FileKey, build_file_key
from tests.daemon_client.tpm2.chips import (
    HANDLE,
    IMPORT,
    PASSPHRASE,
    Opener,
    loaded,
    refusal,
)
from tests.daemon_client.tpm2.swtpm import SoftwareTpm2


@pytest.mark.parametrize("size", [16, 24, 32])
@pytest.mark.parametrize("kind", ["key file", "persistent handle"])
def test_a_key_in_the_tpm_is_the_same_key_as_in_a_pem_file(
    chip: SoftwareTpm2, key_file: Path, opened: Opener, pem_key: PemKey, kind: str, size: int
) -> None:
    if kind == "persistent handle":
        chip.keep("imported", HANDLE)
    key: Key = opened(key_file if kind == "key file" else HANDLE)
    assert key.signature == pem_key.signature
    payload = build_file_key(FileKey(cipher_code("aes", size), os.urandom(size)))
    assert key.decrypt(pem_key.encrypt(payload)) == payload
    assert pem_key.decrypt(key.encrypt(payload)) == payload


@pytest.mark.parametrize("passphrase", [None, b"x", b"x" * 33, b"x" * 64])
def test_a_key_that_the_tpm_made_is_of_use_and_stays_in_it(
    chip: SoftwareTpm2, opened: Opener, tmp_path: Path, passphrase: bytes | None
) -> None:
    path = tmp_path / "made.tss"
    secret = Secret(passphrase) if passphrase else None
    Tpm2().generate(f"{path}?tcti={chip.tcti}", secret, 2048)
    assert path.stat().st_mode & 0o777 == 0o600
    key = opened(path, passphrase)
    assert key.bits == 2048
    assert key.decrypt(key.encrypt(b"a payload")) == b"a payload"
    key.close()
    context = tmp_path / "made.ctx"
    chip.run("tpm2_load", "-r", path, "-c", context)
    attributes = chip.run("tpm2_readpublic", "-c", context).split("attributes:\n")[1].split()[1]
    assert {"fixedtpm", "fixedparent", "sensitivedataorigin", "decrypt"} <= set(
        attributes.split("|")
    )


def test_other_programs_decrypt_what_a_key_encrypts(
    chip: SoftwareTpm2, opened: Opener, key_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "encrypted").write_bytes(opened(key_file).encrypt(b"a payload"))
    said = chip.run(
        *("tpm2_rsadecrypt", "-c", chip.directory / "imported.ctx", *IMPORT),
        *("-s", "oaep-sha1", tmp_path / "encrypted"),
    )
    assert said == "a payload"


def test_a_file_that_exists_is_not_overwritten(chip: SoftwareTpm2, key_file: Path) -> None:
    before = key_file.read_bytes()
    with pytest.raises(KeyOpenError, match="exists already"):
        Tpm2().generate(f"{key_file}?tcti={chip.tcti}", None, 1024)
    assert key_file.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "bits", "reason"),
    [
        (HANDLE, 2048, "not to a handle"),
        ("new.tss", 1030, r"TPM2_RC\.VALUE"),
        ("new.tss", 1 << 20, "no TPM"),
        ("new.tss", -1, "no TPM"),
    ],
)
def test_a_key_that_cannot_be_made_is_refused_with_the_reason(
    chip: SoftwareTpm2, tmp_path: Path, name: str, bits: int, reason: str
) -> None:
    path = name if name == HANDLE else tmp_path / name
    with pytest.raises(KeyOpenError, match=reason):
        Tpm2().generate(f"{path}?tcti={chip.tcti}", None, bits)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("algorithm", "attributes", "reason"),
    [
        ("ecc256:ecdh", "decrypt|userwithauth", "not RSA"),
        ("rsa1024", "sign|userwithauth", "attribute decrypt"),
        ("rsa1024:aes128cfb", "restricted|decrypt|userwithauth", "attribute restricted"),
        ("rsa1024", "decrypt|adminwithpolicy", "a policy"),
        ("rsa1024:oaep-sha256", "decrypt|userwithauth", "a scheme"),
        ("rsa1024:oaep-sha1", "decrypt|userwithauth", "a scheme"),
        ("rsa1024:rsaes", "decrypt|userwithauth", "a scheme"),
    ],
)
def test_a_key_of_another_purpose_is_refused_with_the_reason(
    chip: SoftwareTpm2, opened: Opener, algorithm: str, attributes: str, reason: str
) -> None:
    attributes += "|fixedtpm|fixedparent|sensitivedataorigin"
    path = chip.create_key("other", "-G", algorithm, "-a", attributes)
    assert reason in refusal(opened, path, None)
    assert loaded(chip) == ""


def test_a_tpm_whose_owner_has_a_password_is_of_use_by_persistent_handles_only(
    chip: SoftwareTpm2, opened: Opener, key_file: Path, tmp_path: Path
) -> None:
    chip.keep("imported", HANDLE)
    chip.run("tpm2_changeauth", "-c", "owner", "owner's")
    assert "use a persistent handle" in refusal(opened, key_file)
    with pytest.raises(KeyOpenError, match="owner hierarchy has a password"):
        Tpm2().generate(f"{tmp_path / 'new.tss'}?tcti={chip.tcti}", None, 1024)
    key = opened(HANDLE)
    assert key.decrypt(key.encrypt(b"a payload")) == b"a payload"


def test_another_tpms_key_is_refused(opened: Opener, pem: Path) -> None:
    with SoftwareTpm2() as other:
        path = other.import_key(pem, "theirs", *IMPORT)
        said = refusal(opened, path)
    assert "another TPM's" in said
    assert "TPM2_RC.INTEGRITY" in said


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "holds no key of a TPM"),
        (b"-----BEGIN TSS2 PRIVATE KEY-----\nMAA=\n-----END TSS2 PRIVATE KEY-----\n", "holds no"),
        (b"\xff" * (FILE_SIZE_MAX + 1), "too long"),
    ],
)
def test_a_file_that_is_no_key_file_is_refused(
    opened: Opener, tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "key.tss"
    path.write_bytes(content)
    assert reason in refusal(opened, path)


def test_what_is_not_there_is_refused(opened: Opener, tmp_path: Path) -> None:
    assert "No such file" in refusal(opened, tmp_path / "none.tss")
    assert "Is a directory" in refusal(opened, tmp_path)
    assert "TPM2_RC.HANDLE" in refusal(opened, "0x81010002")
    assert "no persistent handle" in refusal(opened, "0x80000000")


@pytest.mark.parametrize("tcti", ["swtpm:path=/none", "device:/dev/none", "nonsense:"])
def test_a_tpm_that_is_not_there_is_an_error_that_says_so(key_file: Path, tcti: str) -> None:
    with pytest.raises(KeyOpenError, match=r"cannot be reached \(TSS2_RC\.TCTI_RC_"):
        Tpm2().open(f"{key_file}?tcti={tcti}", Secret(PASSPHRASE))
    with pytest.raises(KeyOpenError, match="which TCTI"):
        Tpm2().open(f"{key_file}?tcti=", Secret(PASSPHRASE))


def test_what_a_key_cannot_do_is_an_error_that_tells_nothing(
    opened: Opener, key_file: Path, pem_key: PemKey
) -> None:
    key = opened(key_file)
    ciphertext = pem_key.encrypt(b"secret")
    altered = ciphertext[:-1] + bytes((ciphertext[-1] ^ 1,))
    for wrong in (b"", ciphertext[:-1], ciphertext + b"x", altered, bytes(256), b"\xff" * 256):
        with pytest.raises(KeyOperationError, match="not made with this key"):
            key.decrypt(wrong)
    with pytest.raises(KeyOperationError) as refused:
        key.encrypt(b"secret" * 50)
    assert "secret" not in str(refused.value)
    assert key.decrypt(ciphertext) == b"secret"


def test_a_key_shows_no_passphrase(opened: Opener, key_file: Path) -> None:
    key = opened(key_file)
    assert repr(key) == f"Tpm2Key({key.signature}: RSA, 2048 bits, {key_file})"


def test_the_tcti_may_come_from_the_environment_and_names_the_key_store(
    chip: SoftwareTpm2, opened: Opener, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = opened(key_file)
    monkeypatch.setenv("TPM2TOOLS_TCTI", chip.tcti)
    other = Tpm2().open(str(key_file), Secret(PASSPHRASE))
    assert key.store == other.store == f"tpm2:{chip.tcti}"
    other.close()
    monkeypatch.setenv("TPM2TOOLS_TCTI", "swtpm:path=/none")
    assert opened(key_file).signature == key.signature


def test_a_key_file_may_say_the_wrong_thing_of_its_passphrase(
    chip: SoftwareTpm2, opened: Opener, key_file: Path, tmp_path: Path, pem_key: PemKey
) -> None:
    files = ("-u", chip.directory / "imported.pub", "-r", chip.directory / "imported.priv")
    told = tmp_path / "told.tss"
    chip.run("tpm2_encodeobject", "-C", chip.parent, *files, "-p", "-o", told)
    assert told.read_bytes() != key_file.read_bytes()
    assert opened(told).signature == opened(key_file).signature == pem_key.signature


@pytest.mark.parametrize(
    ("location", "absolute"),
    [
        ("key.tss", "/base/key.tss"),
        ("./0x81010001", "/base/0x81010001"),
        ("../key.tss?tcti=swtpm:path=x", "/base/../key.tss?tcti=swtpm:path=x"),
        ("/etc/key.tss?tcti=device:/dev/tpm0", "/etc/key.tss?tcti=device:/dev/tpm0"),
        ("~/key.tss?tcti=tabrmd", "/home/me/key.tss?tcti=tabrmd"),
        ("0x81010001", "0x81010001"),
        ("0x81010001?tcti=tabrmd", "0x81010001?tcti=tabrmd"),
    ],
)
def test_a_relative_path_is_below_its_base_and_the_rest_of_a_location_is_kept(
    monkeypatch: pytest.MonkeyPatch, location: str, absolute: str
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert Tpm2().absolute(location, Path("/base")) == absolute
