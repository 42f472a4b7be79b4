"""What was written with a key is there when everything that could remember it was started anew."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.kernel.keyd import Keyd
from tests.kernel.keys import ServedKey
from tests.kernel.mount import FILES, PLAIN, EncryptedFolder

KINDS = ["openssl, plain", "openssl, encrypted", "pkcs11", "tpm2"]
KEY_SIZES = [16, 24, 32]
ANSWERED = "is answered"


@pytest.fixture(scope="module")
def keys(
    plain_pem: ServedKey, encrypted_pem: ServedKey, pkcs11_key: ServedKey, tpm2_key: ServedKey
) -> Mapping[str, ServedKey]:
    return dict(zip(KINDS, (plain_pem, encrypted_pem, pkcs11_key, tpm2_key), strict=True))


@pytest.fixture(scope="module")
def written(
    keys: Mapping[str, ServedKey], memory: Path, keyd: Keyd
) -> Mapping[tuple[str, int], EncryptedFolder]:
    """A folder for each kind of key and each size. The daemon that served them has ended."""
    if not keyd.is_running:
        keyd.start()
    folders = {}
    for kind, key in keys.items():
        for size in KEY_SIZES:
            folder = EncryptedFolder(memory / kind / str(size), key, size)
            with folder.mounted(), key.token():
                folder.fill()
            folders[kind, size] = folder
    assert keyd.stop() == os.EX_OK
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")
    return folders


@pytest.mark.parametrize("key_size", KEY_SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_another_daemon_and_another_mount_find_the_files_as_they_were(
    written: Mapping[tuple[str, int], EncryptedFolder], running_keyd: Keyd, kind: str, key_size: int
) -> None:
    folder = written[kind, key_size]
    stored = folder.stored()
    answered = running_keyd.said().count(ANSWERED)
    with folder.mounted(), folder.key.token():
        folder.wait_served()
        assert folder.content() == FILES
    # The kernel remembered no key: it has asked for each.
    running_keyd.wait_said(ANSWERED, answered + 1 + len(FILES))
    assert folder.stored() == stored


@pytest.mark.parametrize("key_size", KEY_SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_the_contents_is_stored_in_the_clear(
    written: Mapping[tuple[str, int], EncryptedFolder], kind: str, key_size: int
) -> None:
    folder = written[kind, key_size]
    for name, octets in folder.stored().items():
        assert bytes.fromhex(folder.key.signature) in octets, name
        assert PLAIN[:16] not in octets, name
        assert len(octets) > len(FILES[name]), name
    assert folder.stored().keys() == FILES.keys()


@pytest.mark.parametrize("kind", ["pkcs11", "tpm2"])
def test_the_files_of_a_key_in_a_store_can_be_read_with_the_same_key_in_a_file(
    written: Mapping[tuple[str, int], EncryptedFolder],
    running_keyd: Keyd,
    plain_pem: ServedKey,
    kind: str,
) -> None:
    folder = written[kind, 16]
    with folder.mounted(), plain_pem.token():
        folder.wait_served()
        assert folder.content() == FILES
