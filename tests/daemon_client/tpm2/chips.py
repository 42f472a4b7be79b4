"""A TPM in software, looked at past the key module."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon_client.key import KeyOpenError, WrongPassphraseError
from daemon_client.modules.tpm2 import Tpm2Key
from tests.daemon_client.tpm2.swtpm import SoftwareTpm2

HANDLE = "0x81010001"
PASSPHRASE = b"correct horse"
IMPORT = ("-p", PASSPHRASE.decode())
Opener = Callable[..., Tpm2Key]


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
