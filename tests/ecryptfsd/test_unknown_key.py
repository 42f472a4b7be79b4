from pathlib import Path

import pytest

from ecryptfs_cuse.wire.ciphers import cipher_code
from ecryptfs_cuse.wire.tags import (
    FileKey,
    Tag64,
    Tag66,
    TagRequest,
    build_file_key,
    build_request,
)
from tests.conftest import ClientFactory
from tests.ecryptfsd.conftest import DaemonFactory
from tests.ecryptfsd.exchange import UNKNOWN_SIGNATURE, ask, run_request
from tests.mounted import MountedDevice

KEY = bytes(range(16))
ENCRYPT = Tag66(UNKNOWN_SIGNATURE, build_file_key(FileKey(cipher_code("aes", len(KEY)), KEY)))
DECRYPT = Tag64(UNKNOWN_SIGNATURE, bytes(256))


@pytest.mark.parametrize(
    ("request_", "failure"), [(ENCRYPT, "43ff"), (DECRYPT, "41ff")], ids=["encrypt", "decrypt"]
)
def test_a_request_for_it_is_answered_with_the_failure_packet(
    device: MountedDevice,
    daemons: DaemonFactory,
    clients: ClientFactory,
    request_: TagRequest,
    failure: str,
) -> None:
    daemons(device).wait_reading()
    client = clients()
    answers = {ask(client, device.request_path, request_).hex() for _ in range(20)}
    assert answers == {failure}
    totals = device.status()["totals"]
    assert (totals["requests"], totals["responses"], totals["responses_refused"]) == (20, 20, 0)


def test_encrypt_says_that_the_daemon_could_not_do_it(
    device: MountedDevice, daemons: DaemonFactory
) -> None:
    daemons(device).wait_reading()
    assert run_request(device, "encrypt", "--sig", UNKNOWN_SIGNATURE, "--key", KEY.hex()) == (
        1,
        "",
        "Error: the file key was not encrypted: the daemon could not do it (status 255)\n",
    )


def test_decrypt_says_that_the_daemon_could_not_do_it(
    device: MountedDevice, daemons: DaemonFactory, tmp_path: Path
) -> None:
    daemons(device).wait_reading()
    encrypted = tmp_path / "encrypted"
    encrypted.write_bytes(bytes(256))
    arguments = ("--sig", UNKNOWN_SIGNATURE, "--encrypted", str(encrypted))
    assert run_request(device, "decrypt", *arguments) == (
        1,
        "",
        "Error: the file key was not decrypted: the daemon could not do it (status 255)\n",
    )


@pytest.mark.parametrize(
    ("request_", "failure"), [(ENCRYPT, "43ff"), (DECRYPT, "41ff")], ids=["encrypt", "decrypt"]
)
def test_raw_prints_the_failure_packet_as_any_answer(
    device: MountedDevice, daemons: DaemonFactory, request_: TagRequest, failure: str
) -> None:
    daemons(device).wait_reading()
    packet = build_request(request_).hex()
    assert run_request(device, "raw", packet) == (0, f"{failure}\n", "")


def test_a_tag_that_it_does_not_know_fails_too(
    device: MountedDevice, daemons: DaemonFactory
) -> None:
    daemons(device).wait_reading()
    packet = "4810" + UNKNOWN_SIGNATURE.encode().hex() + "0100"
    assert run_request(device, "raw", packet) == (0, "41ff\n", "")
