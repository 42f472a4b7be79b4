import os
from pathlib import Path

import pytest

from ecryptfs_cuse.core.keystore import decrypted_key, encrypted_key
from ecryptfs_cuse.wire.ciphers import cipher_code
from ecryptfs_cuse.wire.tags import FileKey, Tag64, Tag66, build_file_key
from tests.conftest import ClientFactory
from tests.ecryptfsd.conftest import DaemonFactory
from tests.ecryptfsd.exchange import ask, run_request
from tests.ecryptfsd.tpm import SoftwareTpm
from tests.mounted import MountedDevice

SEALED_SIZE = 268


@pytest.mark.parametrize("key_size", [16, 24, 32])
def test_a_file_key_that_it_encrypts_with_the_tpm_comes_back_when_it_decrypts_it(
    device: MountedDevice,
    daemons: DaemonFactory,
    clients: ClientFactory,
    tpm: SoftwareTpm,
    tpm_signature: str,
    key_size: int,
) -> None:
    daemons(device, **tpm.environment).wait_reading()
    client = clients()
    file_key = FileKey(cipher_code("aes", key_size), os.urandom(key_size))
    sealed = encrypted_key(
        ask(client, device.request_path, Tag66(tpm_signature, build_file_key(file_key)))
    )
    assert len(sealed) == SEALED_SIZE
    assert file_key.key not in sealed
    answer = ask(client, device.request_path, Tag64(tpm_signature, sealed))
    assert decrypted_key(answer) == file_key


def test_a_file_key_goes_there_and_back_on_the_command_line(
    device: MountedDevice,
    daemons: DaemonFactory,
    tpm: SoftwareTpm,
    tpm_signature: str,
    tmp_path: Path,
) -> None:
    daemons(device, **tpm.environment).wait_reading()
    key = os.urandom(16).hex()
    status, sealed, _ = run_request(device, "encrypt", "--sig", tpm_signature, "--key", key)
    assert status == 0
    encrypted = tmp_path / "encrypted"
    encrypted.write_text(sealed)
    arguments = ("--sig", tpm_signature, "--encrypted", str(encrypted))
    assert run_request(device, "decrypt", *arguments) == (0, f"{key}\n", "")


def test_an_altered_encrypted_key_fails_and_it_goes_on(
    device: MountedDevice,
    daemons: DaemonFactory,
    clients: ClientFactory,
    tpm: SoftwareTpm,
    tpm_signature: str,
) -> None:
    daemons(device, **tpm.environment).wait_reading()
    client = clients()
    file_key = FileKey(cipher_code("aes", 16), os.urandom(16))
    sealed = encrypted_key(
        ask(client, device.request_path, Tag66(tpm_signature, build_file_key(file_key)))
    )
    altered = sealed[:-1] + bytes((sealed[-1] ^ 1,))
    assert ask(client, device.request_path, Tag64(tpm_signature, altered)) == b"\x41\xff"
    answer = ask(client, device.request_path, Tag64(tpm_signature, sealed))
    assert decrypted_key(answer) == file_key
