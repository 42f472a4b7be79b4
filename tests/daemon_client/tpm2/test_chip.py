"""A TPM at work: passphrases that it counts, places, the bus, going away."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tpm2_pytss as tss

from daemon_client.key import KeyOperationError, WrongPassphraseError
from daemon_client.modules.openssl import PemKey
from daemon_client.modules.tpm2 import Tpm2
from daemon_client.secret import Secret
from tests.client import PATIENCE, Client
from tests.daemon_client.tpm2.chips import (
    HANDLE,
    IMPORT,
    PASSPHRASE,
    Opener,
    loaded,
    refusal,
    wrong_passphrases,
)
from tests.daemon_client.tpm2.swtpm import SoftwareTpm2


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
