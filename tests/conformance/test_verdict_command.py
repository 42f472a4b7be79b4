"""``ecryptfs-cuse request encrypt|decrypt``: what it says of an answer, and its exit code.

The verdicts are the kernel's: test_reply.py has all of them. This command is the emulator's own.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from click.testing import CliRunner, Result

from ecryptfs_cuse.cli.request import request
from tests.conformance.emulator import SIGNATURE, EmulatedSystem
from tests.conformance.system import ROOT, System

_KEY = 16 * "17"
_PAYLOAD = "07" + _KEY + "0170"
"""Cipher code, key, and its checksum."""

_SHORT = "the tag packet is shorter than its lengths say"


@pytest.fixture
def emulator(system: System) -> EmulatedSystem:
    if not isinstance(system, EmulatedSystem):
        pytest.skip("this command is the emulator's")
    return system


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def _run(
    emulator: EmulatedSystem, background: ThreadPoolExecutor, kind: str, answer: str
) -> Result:
    arguments = [kind, "--mount", str(emulator.mounted.mountpoint), "--sig", SIGNATURE]
    given = ["--key", _KEY] if kind == "encrypt" else ["--encrypted", "-"]
    with emulator.daemon(ROOT) as daemon:
        running = background.submit(CliRunner().invoke, request, [*arguments, *given], input="1234")
        daemon.answer(daemon.question(), bytes.fromhex(answer))
        return running.result()


@pytest.mark.parametrize(
    ("answer", "printed"),
    [("43000417171717", "17171717"), ("43000017", ""), ("4300021234ffff", "1234")],
)
def test_what_was_encrypted_is_printed(
    emulator: EmulatedSystem, background: ThreadPoolExecutor, answer: str, printed: str
) -> None:
    result = _run(emulator, background, "encrypt", answer)
    assert (result.exit_code, result.stdout, result.stderr) == (0, printed + "\n", "")


@pytest.mark.parametrize(
    ("answer", "printed"),
    [("410013" + _PAYLOAD, _KEY), ("410013" + _PAYLOAD + "ff", _KEY), ("410003070000", "")],
)
def test_what_was_decrypted_is_printed(
    emulator: EmulatedSystem, background: ThreadPoolExecutor, answer: str, printed: str
) -> None:
    result = _run(emulator, background, "decrypt", answer)
    assert (result.exit_code, result.stdout, result.stderr) == (0, printed + "\n", "")


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ("43010417171717", "the daemon could not do it (status 1)"),
        ("43ff", "the daemon could not do it (status 255)"),
        ("", "an answer has at least 4 octets, not 0"),
        ("4300", "an answer has at least 4 octets, not 2"),
        ("41000417171717", "the answer has tag 65 instead of 67"),
        ("4300051717", _SHORT),
        ("4300e013" + _KEY, "a packet length cannot start with the octet 224"),
        ("4300ff13" + _KEY, "a packet length cannot start with the octet 255"),
        ("4300c141" + 512 * "17", _SHORT),
    ],
)
def test_what_is_no_encrypted_key_is_a_sentence(
    emulator: EmulatedSystem, background: ThreadPoolExecutor, answer: str, sentence: str
) -> None:
    result = _run(emulator, background, "encrypt", answer)
    said = f"Error: the file key was not encrypted: {sentence}\n"
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", said)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ("410113" + _PAYLOAD, "the daemon could not do it (status 1)"),
        ("41ff", "the daemon could not do it (status 255)"),
        ("", "an answer has at least 4 octets, not 0"),
        ("410000", "an answer has at least 4 octets, not 3"),
        ("430013" + _PAYLOAD, "the answer has tag 67 instead of 65"),
        ("410014" + _PAYLOAD, _SHORT),
        ("4100e013" + _PAYLOAD, "a packet length cannot start with the octet 224"),
        ("4100020700", "a payload is a cipher code, a key and a checksum of two octets"),
        ("410013" + _PAYLOAD[:-2] + "71", "the key's checksum is wrong"),
        ("41001300" + _PAYLOAD[2:], "the cipher code 0 is unknown"),
        ("41004407" + 67 * "00", "the key has more than 64 octets"),
    ],
)
def test_what_is_no_file_key_is_a_sentence(
    emulator: EmulatedSystem, background: ThreadPoolExecutor, answer: str, sentence: str
) -> None:
    result = _run(emulator, background, "decrypt", answer)
    said = f"Error: the file key was not decrypted: {sentence}\n"
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", said)
