"""A daemon that has not the right key fails the request, and nothing is damaged."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from daemon_client.modules.openssl import OpenSsl
from daemon_client.secret import Secret
from tests.kernel.keyd import Keyd
from tests.kernel.keys import ServedKey
from tests.kernel.mount import FILES, EncryptedFolder

WRONG = ["no token", "a token of another key", "a wrong passphrase", "no key file"]


@pytest.fixture
def wrong_token(
    plain_pem: ServedKey,
    other_pem: ServedKey,
    encrypted_pem: ServedKey,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> tuple[AbstractContextManager[None], str]:
    """What the keyring has under the key's signature, and what the daemon says about it."""
    blob = OpenSsl().build_blob
    blobs: Mapping[str, tuple[bytes, str]] = {
        "a token of another key": (
            other_pem.blob,
            f"the signature is {other_pem.signature}, not '{plain_pem.signature}' as expected",
        ),
        "a wrong passphrase": (
            blob(encrypted_pem.location, Secret(b"wrong")),
            f"{encrypted_pem.location} cannot be decrypted: the passphrase is wrong",
        ),
        "no key file": (
            blob(str(tmp_path / "none.pem"), None),
            f"the key file {tmp_path / 'none.pem'} does not exist",
        ),
    }
    if request.param == "no token":
        return nullcontext(), f"there is no key '{plain_pem.signature}'"
    octets, said = blobs[request.param]
    return replace(plain_pem, blob=octets).token(), said


@pytest.mark.parametrize("wrong_token", WRONG, indirect=True)
def test_without_the_right_key_nothing_opens_and_with_it_everything_is_as_it_was(
    running_keyd: Keyd,
    folder: EncryptedFolder,
    wrong_token: tuple[AbstractContextManager[None], str],
) -> None:
    token, why = wrong_token
    stored, already_said = folder.stored(), running_keyd.said()
    with folder.mounted():
        with token:
            assert folder.create("new") == "EIO"
            assert {name: folder.open(name) for name in FILES} == dict.fromkeys(FILES, "EIO")
        said = running_keyd.said().removeprefix(already_said)
        assert said.count(f"fails: {why}") == 1 + len(FILES)
        # No lower file is left of the one that could not be created.
        assert folder.stored() == stored
        with folder.key.token():
            folder.wait_served()
            assert folder.content() == FILES
            assert folder.create("new") is None
    assert {name: folder.stored()[name] for name in FILES} == stored


def test_a_file_whose_encrypted_key_was_altered_fails_alone_until_it_is_restored(
    running_keyd: Keyd, folder: EncryptedFolder
) -> None:
    path = folder.lower / "small"
    good = path.read_bytes()
    # A tag 1 packet: ... | signature | cipher code | the encrypted key | ...
    place = good.index(bytes.fromhex(folder.key.signature)) + 8 + 1 + 100
    path.write_bytes(good[:place] + bytes((good[place] ^ 1,)) + good[place + 1 :])
    with folder.mounted(), folder.key.token():
        assert folder.open("small") == "EIO"
        assert "fails: the ciphertext was not made with this key" in running_keyd.said()
        assert {name for name in FILES if folder.open(name) is not None} == {"small"}
    path.write_bytes(good)
    stored = folder.stored()
    with folder.mounted(), folder.key.token():
        assert folder.content() == FILES
    assert folder.stored() == stored
