"""The daemon comes and goes on the kernel's device, while eCryptfs stays mounted."""

import os
import subprocess
from contextlib import nullcontext
from pathlib import Path

from daemon_client.sources import keyring
from tests.kernel.conftest import PASSPHRASE
from tests.kernel.keyd import COMMAND, PATIENCE, Keyd
from tests.kernel.keys import ServedKey
from tests.kernel.mount import FILES, EncryptedFolder


def test_without_a_daemon_requests_fail_and_with_a_new_one_they_succeed_at_once(
    running_keyd: Keyd, folder: EncryptedFolder
) -> None:
    stored = folder.stored()
    with folder.mounted(), folder.key.token():
        assert running_keyd.stop() == os.EX_OK
        assert "stopping: SIGTERM" in running_keyd.said()
        assert folder.create("new") == "ENOTCONN"
        assert {name: folder.open(name) for name in FILES} == dict.fromkeys(FILES, "EIO")
        assert folder.stored() == stored
        running_keyd.start()
        folder.wait_served()
        assert folder.content() == FILES
        assert folder.create("new") is None


def test_a_key_that_the_command_makes_in_the_keyring_is_all_that_mount_and_daemon_need(
    running_keyd: Keyd, memory: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [*COMMAND, "key", "generate", str(tmp_path / "key.pem"), "--to", "keyring"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
    )
    signature = done.stdout.strip()
    key = ServedKey(signature, "openssl", str(tmp_path / "key.pem"), b"")
    folder = EncryptedFolder(memory / "made", key)
    try:
        with folder.mounted(nullcontext()):
            folder.fill()
        with folder.mounted(nullcontext()):
            assert folder.content() == FILES
    finally:
        serial = keyring.find(signature)
        assert serial is not None
        keyring.remove(serial)


def test_a_key_that_is_named_on_the_command_line_needs_no_token_of_its_own(
    keyd: Keyd, memory: Path, encrypted_pem: ServedKey, tmp_path: Path
) -> None:
    if keyd.is_running:
        assert keyd.stop() == os.EX_OK
    passphrase = tmp_path / "passphrase"
    passphrase.write_bytes(PASSPHRASE + b"\n")
    keyd.start(
        *("--key", encrypted_pem.location, "--passphrase", f"file:{passphrase}", "--no-keyring")
    )
    folder = EncryptedFolder(memory / "named", encrypted_pem)
    with folder.mounted():
        folder.fill()
    with folder.mounted():
        assert folder.content() == FILES
    assert keyd.stop() == os.EX_OK
