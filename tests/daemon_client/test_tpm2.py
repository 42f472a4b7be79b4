import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import tpm2_pytss as tss

from daemon_client.key import Key, KeyOpenError, KeyOperationError, WrongPassphraseError
from daemon_client.modules.openssl import OpenSsl, PemKey
from daemon_client.modules.tpm2 import FILE_SIZE_MAX, Tpm2, Tpm2Key
from daemon_client.secret import Secret
from ecryptfs_cuse.wire.ciphers import cipher_code
from ecryptfs_cuse.wire.tags import FileKey, build_file_key
from tests.client import PATIENCE, Client
from tests.daemon_client.swtpm import SoftwareTpm2

HANDLE = "0x81010001"
PASSPHRASE = b"correct horse"
IMPORT = ("-p", PASSPHRASE.decode())
Opener = Callable[..., Tpm2Key]


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pem") / "key.pem"
    OpenSsl().generate(str(path), None, 2048)
    return path


@pytest.fixture(scope="module")
def pem_key(pem: Path) -> PemKey:
    return OpenSsl().open(str(pem), None)


@pytest.fixture
def chip() -> Iterator[SoftwareTpm2]:
    with SoftwareTpm2() as started:
        yield started


@pytest.fixture
def key_file(chip: SoftwareTpm2, pem: Path) -> Path:
    """The key of the PEM file, in the TPM. Wrong passphrases count."""
    return chip.import_key(pem, "imported", *IMPORT)


@pytest.fixture
def opened(chip: SoftwareTpm2) -> Iterator[Opener]:
    """Open keys, which are closed at the end."""
    with ExitStack() as closing:

        def opener(path: Path | str, passphrase: bytes | None = PASSPHRASE) -> Tpm2Key:
            secret = Secret(passphrase) if passphrase is not None else None
            key = Tpm2().open(f"{path}?tcti={chip.tcti}", secret)
            closing.callback(key.close)
            return key

        yield opener


def refusal(opened: Opener, path: Path | str, passphrase: bytes | None = PASSPHRASE) -> str:
    with pytest.raises(KeyOpenError) as refused:
        opened(path, passphrase)
    assert not isinstance(refused.value, WrongPassphraseError)
    assert str(path) in str(refused.value)
    return str(refused.value)


def wrong_passphrases(chip: SoftwareTpm2) -> int:
    said = chip.run("tpm2_getcap", "properties-variable")
    return int(said.split("TPM2_PT_LOCKOUT_COUNTER: ")[1].split()[0], 16)


def loaded(chip: SoftwareTpm2) -> str:
    environment = {**os.environ, "TPM2TOOLS_TCTI": chip.tcti}
    said = [
        subprocess.check_output(["tpm2_getcap", handles], env=environment, text=True)
        for handles in ("handles-transient", "handles-loaded-session")
    ]
    return "".join(said)


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


@pytest.mark.parametrize("passphrase", [b"wrong horse", None])
def test_a_wrong_passphrase_is_noticed_on_opening_and_counts_once(
    chip: SoftwareTpm2, opened: Opener, key_file: Path, passphrase: bytes | None
) -> None:
    with pytest.raises(WrongPassphraseError) as refused:
        opened(key_file, passphrase)
    assert "TPM2_RC.AUTH_FAIL" in str(refused.value)
    assert "horse" not in str(refused.value)
    assert wrong_passphrases(chip) == 1
    assert loaded(chip) == ""


def test_a_passphrase_longer_than_any_is_wrong_without_asking(
    chip: SoftwareTpm2, opened: Opener, key_file: Path
) -> None:
    with pytest.raises(WrongPassphraseError, match="at most 64 octets"):
        opened(key_file, b"x" * 65)
    assert wrong_passphrases(chip) == 0


def test_a_wrong_passphrase_of_one_key_does_not_disturb_another(
    opened: Opener, key_file: Path, pem_key: PemKey
) -> None:
    key = opened(key_file)
    with pytest.raises(WrongPassphraseError):
        opened(key_file, b"wrong horse")
    assert key.decrypt(pem_key.encrypt(b"a payload")) == b"a payload"


def test_a_locked_tpm_is_not_a_wrong_passphrase(
    opened: Opener, key_file: Path, pem_key: PemKey
) -> None:
    key = opened(key_file)
    for _ in range(3):
        with pytest.raises(WrongPassphraseError):
            opened(key_file, b"wrong horse")
    said = refusal(opened, key_file)
    assert "has locked itself" in said
    assert "TPM2_RC.LOCKOUT" in said
    with pytest.raises(KeyOperationError, match="has locked itself"):
        key.decrypt(pem_key.encrypt(b"a payload"))


def test_a_passphrase_that_was_changed_is_tried_once_and_not_at_each_request(
    chip: SoftwareTpm2, opened: Opener, pem: Path, pem_key: PemKey
) -> None:
    chip.import_key(pem, "before", *IMPORT)
    chip.keep("before", HANDLE)
    key = opened(HANDLE)
    chip.import_key(pem, "after", "-p", "another")
    chip.keep("after", HANDLE)
    with pytest.raises(KeyOperationError, match="not right any more"):
        key.decrypt(pem_key.encrypt(b"a payload"))
    with pytest.raises(KeyOperationError, match="is closed"):
        key.decrypt(pem_key.encrypt(b"a payload"))
    assert wrong_passphrases(chip) == 1


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_keys_are_loaded_again_when_the_tpm_comes_back(
    chip: SoftwareTpm2, opened: Opener, pem: Path, pem_key: PemKey, number: signal.Signals
) -> None:
    # Its use at the time would count as a wrong passphrase.
    path = chip.import_key(pem, "uncounted", *IMPORT, "-a", "decrypt|userwithauth|noda")
    chip.keep("uncounted", HANDLE)
    keys = [opened(path), opened(HANDLE), opened(path)]
    ciphertext = pem_key.encrypt(b"a payload")
    for _ in range(2):
        os.kill(chip.pid, number)
        chip.stop()
        for key in keys:
            with pytest.raises(KeyOperationError, match="cannot be reached"):
                key.decrypt(ciphertext)
        chip.start()
        assert [key.decrypt(ciphertext) for key in keys] == [b"a payload"] * 3
    # Nobody has noticed that it was away.
    chip.stop()
    chip.start()
    assert [key.decrypt(ciphertext) for key in keys] == [b"a payload"] * 3
    assert wrong_passphrases(chip) == 0


def test_a_key_can_be_opened_when_the_tpm_was_away_in_between(
    chip: SoftwareTpm2, opened: Opener, key_file: Path, pem_key: PemKey
) -> None:
    first = opened(key_file)
    chip.stop()
    chip.start()
    second = opened(key_file)
    for key in (first, second):
        assert key.decrypt(pem_key.encrypt(b"a payload")) == b"a payload"


def test_closed_keys_leave_their_places_in_the_tpm(
    chip: SoftwareTpm2, opened: Opener, key_file: Path, pem_key: PemKey
) -> None:
    ciphertext = pem_key.encrypt(b"a payload")
    for _ in range(5):
        keys = [opened(key_file), opened(key_file)]
        assert [key.decrypt(ciphertext) for key in keys] == [b"a payload"] * 2
        assert loaded(chip).count("0x") == 3
        keys[0].close()
        assert keys[1].decrypt(ciphertext) == b"a payload"
        keys[1].close()
        assert loaded(chip) == ""
    with pytest.raises(KeyOperationError, match="is closed"):
        keys[0].decrypt(ciphertext)


def test_one_key_too_many_is_refused_with_the_remedy_and_the_others_go_on(
    chip: SoftwareTpm2, opened: Opener, key_file: Path, pem_key: PemKey
) -> None:
    keys = [opened(key_file), opened(key_file)]
    said = refusal(opened, key_file)
    assert "resource manager" in said
    assert "TPM2_RC.OBJECT_MEMORY" in said
    ciphertext = pem_key.encrypt(b"a payload")
    assert [key.decrypt(ciphertext) for key in keys] == [b"a payload"] * 2
    chip.keep("imported", HANDLE)
    assert opened(HANDLE).signature == pem_key.signature


def test_keys_may_be_used_by_several_threads(
    opened: Opener, key_file: Path, pem_key: PemKey
) -> None:
    keys = [opened(key_file), opened(key_file)] * 10
    payloads = [bytes((n,)) * 16 for n in range(20)]
    ciphertexts = [pem_key.encrypt(payload) for payload in payloads]
    with ThreadPoolExecutor(4) as threads:
        done = threads.map(lambda key, ciphertext: key.decrypt(ciphertext), keys, ciphertexts)
        assert list(done) == payloads


def test_a_payload_does_not_cross_the_bus_in_the_clear(
    chip: SoftwareTpm2,
    key_file: Path,
    pem_key: PemKey,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    payload = os.urandom(32)
    ciphertext = pem_key.encrypt(payload)

    def recorded(name: str, decrypt: Callable[[str], bytes]) -> bytes:
        monkeypatch.setenv("TCTI_PCAP_FILE", str(tmp_path / name))
        assert decrypt(f"pcap:{chip.tcti}") == payload
        return (tmp_path / name).read_bytes()

    def ours(tcti: str) -> bytes:
        key = Tpm2().open(f"{key_file}?tcti={tcti}", Secret(PASSPHRASE))
        try:
            return key.decrypt(ciphertext)
        finally:
            key.close()

    def unprotected(tcti: str) -> bytes:
        chip.keep("imported", HANDLE)
        with tss.ESAPI(tcti) as context:
            handle = context.tr_from_tpmpublic(int(HANDLE, 16))
            context.tr_set_auth(handle, PASSPHRASE)
            scheme = tss.TPMU_ASYM_SCHEME(oaep=tss.TPMS_SCHEME_HASH(hashAlg=tss.TPM2_ALG.SHA1))
            oaep = tss.TPMT_RSA_DECRYPT(scheme=tss.TPM2_ALG.OAEP, details=scheme)
            return bytes(context.rsa_decrypt(handle, ciphertext, oaep))

    seen = recorded("unprotected", unprotected)
    assert payload in seen
    assert PASSPHRASE in seen
    seen = recorded("ours", ours)
    assert payload not in seen
    assert PASSPHRASE not in seen
    # All of it was recorded: the key itself is not encrypted when it is loaded.
    assert (chip.directory / "imported.pub").read_bytes() in seen


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


@pytest.mark.parametrize("chosen", [None, "all+error"])
def test_the_library_is_silent_unless_it_was_told_not_to_be(
    chip: SoftwareTpm2, chosen: str | None
) -> None:
    # In a process of its own: the library looks at its environment once.
    environment = {name: text for name, text in os.environ.items() if name != "TSS2_LOG"}
    if chosen is not None:
        environment["TSS2_LOG"] = chosen
    program = (
        "import sys; from daemon_client.modules.tpm2 import Tpm2; Tpm2().open(sys.argv[1], None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, f"{HANDLE}?tcti={chip.tcti}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert "KeyOpenError" in done.stderr
    assert ("ERROR:esys" in done.stderr) == (chosen is not None)


def test_other_threads_go_on_while_the_tpm_takes_its_time(
    chip: SoftwareTpm2, key_file: Path, tmp_path: Path, pem_key: PemKey
) -> None:
    functions = tmp_path / "tpm2_functions.py"
    functions.write_text(
        "from daemon_client.modules.tpm2 import Tpm2\n"
        "from daemon_client.secret import Secret\n"
        "keys = []\n"
        "def open_key(location, passphrase):\n"
        "    keys.append(Tpm2().open(location, Secret(passphrase)))\n"
        "def decrypt(ciphertext):\n"
        "    return keys[0].decrypt(ciphertext)\n"
    )
    with Client(functions=functions) as client:
        client.call("open_key", f"{key_file}?tcti={chip.tcti}", PASSPHRASE)
        os.kill(chip.pid, signal.SIGSTOP)
        decrypting = client.start("decrypt", pem_key.encrypt(b"a payload"))
        decrypting.wait_blocked()
        assert client.call("os.getpid") == client.pid
        assert not decrypting.is_done
        os.kill(chip.pid, signal.SIGCONT)
        assert decrypting.result() == b"a payload"
