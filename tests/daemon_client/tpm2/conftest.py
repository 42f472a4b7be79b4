"""Fixtures: a TPM in software, the same key in it and in a file."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from daemon_client.modules.openssl import OpenSsl, PemKey
from daemon_client.modules.tpm2 import Tpm2, Tpm2Key
from daemon_client.secret import Secret
from tests.daemon_client.tpm2.chips import IMPORT, PASSPHRASE, Opener
from tests.daemon_client.tpm2.swtpm import SoftwareTpm2


@pytest.fixture(scope="package")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pem") / "key.pem"
    OpenSsl().generate(str(path), None, 2048)
    return path


@pytest.fixture(scope="package")
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
