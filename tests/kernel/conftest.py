"""What the tests on a real kernel's eCryptfs mounts share: one daemon, and keys.

To start the daemon takes most of the time, so it is started only where a test needs a new one.
"""

import re
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.daemon_client.pkcs11 import softhsm
from tests.daemon_client.pkcs11.softhsm import SoftHsm
from tests.daemon_client.tpm2.swtpm import SoftwareTpm2
from tests.kernel import hanging
from tests.kernel.keyd import Keyd
from tests.kernel.keys import ServedKey, moved, new_pem
from tests.kernel.mount import EncryptedFolder, memory_at

BROKEN = re.compile("kernel BUG|BUG: unable|BUG: kernel|Oops|general protection fault")
PASSPHRASE = b"correct horse"


@pytest.fixture(scope="package", autouse=True)
def _on_a_real_kernel() -> Iterator[None]:
    if "guest_script=" not in Path("/proc/cmdline").read_text():
        pytest.skip("only a real kernel has an eCryptfs mount: run make test-kernel")
    yield
    log = subprocess.run(["dmesg"], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert BROKEN.search(log) is None, "the kernel is broken: see its log"


@pytest.fixture(scope="package")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in memory, for what eCryptfs encrypts."""
    where = tmp_path_factory.mktemp("memory")
    with memory_at(where):
        yield where


@pytest.fixture(scope="package")
def hsm() -> Iterator[SoftHsm]:
    """A PKCS#11 library without a token."""
    with SoftHsm() as made:
        yield made


@pytest.fixture(scope="package")
def keyd(tmp_path_factory: pytest.TempPathFactory, hsm: SoftHsm) -> Iterator[Keyd]:
    """The daemon, which knows of keys by their tokens; not always running."""
    where = tmp_path_factory.mktemp("keyd")
    hanging.installed(where / "packages")
    environment = {"PYTHONPATH": str(where / "packages"), **hsm.environment}
    daemon = Keyd(environment)
    yield daemon
    daemon.kill()


@pytest.fixture
def running_keyd(keyd: Keyd) -> Iterator[Keyd]:
    """The daemon, running."""
    if not keyd.is_running:
        keyd.start()
    yield keyd
    print(keyd.said())  # shown where the test has failed


@pytest.fixture(scope="package")
def plain_pem(tmp_path_factory: pytest.TempPathFactory) -> ServedKey:
    return new_pem(tmp_path_factory.mktemp("keys") / "plain.pem")


@pytest.fixture(scope="package")
def other_pem(tmp_path_factory: pytest.TempPathFactory) -> ServedKey:
    return new_pem(tmp_path_factory.mktemp("keys") / "other.pem")


@pytest.fixture(scope="package")
def encrypted_pem(tmp_path_factory: pytest.TempPathFactory) -> ServedKey:
    return new_pem(tmp_path_factory.mktemp("keys") / "encrypted.pem", PASSPHRASE)


@pytest.fixture(scope="package")
def pkcs11_key(hsm: SoftHsm, plain_pem: ServedKey) -> ServedKey:
    """The key of ``plain_pem``, in a token."""
    hsm.make_token("mine")
    hsm.import_key(Path(plain_pem.location), "mine", "files", "01")
    return moved(
        plain_pem, "pkcs11", softhsm.location(token="mine", object="files"), softhsm.PIN.encode()
    )


@pytest.fixture(scope="package")
def tpm2_key(plain_pem: ServedKey) -> Iterator[ServedKey]:
    """The key of ``plain_pem``, in a TPM."""
    with SoftwareTpm2() as chip:
        path = chip.import_key(Path(plain_pem.location), "files", "-p", PASSPHRASE.decode())
        yield moved(plain_pem, "tpm2", f"{path}?tcti={chip.tcti}", PASSPHRASE)


_numbers = count()


@pytest.fixture
def folder(memory: Path, running_keyd: Keyd, plain_pem: ServedKey) -> EncryptedFolder:
    """A folder with all FILES, stored and not mounted. Its key is in the keyring for nobody."""
    made = EncryptedFolder(memory / f"folder{next(_numbers)}", plain_pem)
    with made.mounted(), plain_pem.token():
        made.fill()
    return made
