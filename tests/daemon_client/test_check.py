"""ecryptfs-keyd --check, as it is run: every key is tried, every fault is a line."""

import os
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, PrivateFormat

from daemon_client.cli.check import check_keys
from daemon_client.cli.errors import ConfigFailed
from daemon_client.key import Key
from daemon_client.modules.openssl import PemKey
from daemon_client.secret import Secret
from daemon_client.sources import keyring
from daemon_client.sources.config import Config
from daemon_client.sources.directory import KeyDirectory
from daemon_client.sources.reference import KeyReference
from daemon_client.sources.tokens import add_token
from ecryptfs_cuse.wire.auth_token import PrivateKeyToken, build_private_key_token
from tests.daemon_client.fresh_key import pem, private_key, signature
from tests.daemon_client.test_cli_key import keyd
from tests.daemon_client.test_openssl import write_pem
from tests.daemon_client.test_secret import PASSPHRASE
from tests.daemon_client.third_party import Shelf, installed_shelf

__all__ = ["pem", "private_key", "signature"]  # fixtures


@pytest.fixture
def locked(tmp_path: Path, private_key: rsa.RSAPrivateKey) -> Path:
    encryption = BestAvailableEncryption(PASSPHRASE.encode())
    return write_pem(tmp_path / "locked.pem", private_key, PrivateFormat.PKCS8, encryption)


def checked(*arguments: str) -> tuple[int, list[str], str]:
    """The exit code, the lines on standard output, and what is on standard error."""
    done = keyd("--device", os.devnull, *arguments, "--check")
    return done.returncode, done.stdout.splitlines(), done.stderr


def reported(config: Config, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """In this process: what is printed, and what it fails with."""
    failure = ""
    try:
        check_keys(config)
    except ConfigFailed as error:
        failure = error.message
    return capsys.readouterr().out, failure


def test_keys_that_are_right_are_named_with_their_places(
    pem: Path, locked: Path, signature: str, config_directory: Path
) -> None:
    KeyDirectory(config_directory / "keys").add(signature, KeyReference("openssl", str(pem)))
    reference = KeyReference("openssl", str(locked))
    add_token(reference, signature, Secret(PASSPHRASE.encode()))
    code, lines, said = checked("--key", str(pem))
    # What others have in the keyring is theirs.
    mine = [line for line in lines if signature in line]
    assert [re.sub(r"; [0-9]+ ms to decrypt$", "; N ms", line) for line in mine] == [
        f"ok: configuration: {signature} openssl: RSA, 1024 bits, {pem}; N ms",
        f"ok: directory: {signature} openssl: RSA, 1024 bits, {pem}; N ms",
        f"ok: keyring: {signature} openssl: RSA, 1024 bits, {locked}; N ms",
    ]
    code, lines, said = checked("--no-keyring", "--key", str(pem))
    assert (code, len(lines), said) == (0, 2, "")


def test_every_fault_is_a_line_and_ends_with_exit_code_78(
    pem: Path, locked: Path, signature: str, tmp_path: Path, config_directory: Path
) -> None:
    (tmp_path / "pin").write_text(PASSPHRASE[:-1])
    KeyDirectory(config_directory / "keys").add("0" * 16, KeyReference("openssl", str(pem)))
    code, lines, said = checked(
        *("--no-keyring", "--key", str(pem), "--key", str(locked)),
        *("--key", str(tmp_path / "none.pem"), "--passphrase", f"file:{tmp_path}/pin"),
    )
    assert code == 78
    assert said == "Error: 3 of 4 keys cannot be used\n"
    ok, wrong, none, other = lines
    assert ok.startswith(f"ok: configuration: {signature} openssl: ")
    assert wrong.startswith(f"wrong: configuration: openssl {locked}: {locked} cannot be decrypted")
    assert none.endswith("none.pem does not exist")
    assert other.startswith(
        f"wrong: directory: openssl {pem}: the signature is {signature}, not '{'0' * 16}'"
    )
    assert PASSPHRASE[:-1] not in said + "".join(lines)


def test_tokens_that_cannot_be_used_are_told(locked: Path, signature: str) -> None:
    add_token(KeyReference("openssl", str(locked)), signature, Secret(PASSPHRASE[:-1].encode()))
    code, lines, said = checked()
    mine = [line for line in lines if str(locked) in line]
    assert code == 78
    assert len(mine) == 1
    assert mine[0].startswith(f"wrong: keyring: openssl {locked}: {locked} cannot be decrypted: ")
    token = PrivateKeyToken(signature, "tspi", bytes(16))
    keyring.add(signature, build_private_key_token(token))
    code, lines, said = checked()
    assert code == 78
    assert "wrong: keyring: tspi unknown: there is no key module 'tspi'" in "\n".join(lines)
    assert "keys cannot be used" in said
    assert PASSPHRASE[:-1] not in said + "".join(lines)


def test_without_keys_it_says_what_to_do() -> None:
    assert checked("--no-keyring") == (
        0,
        ["no keys: make one with 'ecryptfs-keyd key generate', or name one with --key"],
        "",
    )


def test_a_device_that_is_not_there_is_no_fault(pem: Path, tmp_path: Path) -> None:
    device = str(tmp_path / "none")
    done = keyd("--no-keyring", "--key", str(pem), "--device", device, "--check")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1] == f"note: the device {device} is not there at present"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("devise = 'a'", "there is no 'devise'"),
        ("[[key]]\nlocation = 'a'\nmodule = 'none'", "there is no key module 'none'"),
        (f"[[key]]\nlocation = 'a'\npassphrase = '{PASSPHRASE}'", "what was given is no source"),
    ],
)
def test_a_configuration_that_is_wrong_ends_with_exit_code_78(
    tmp_path: Path, content: str, why: str
) -> None:
    (tmp_path / "keyd.toml").write_text(content)
    code, lines, said = checked("--config", str(tmp_path / "keyd.toml"))
    assert (code, lines) == (78, [])
    assert said.startswith(f"Error: {tmp_path}/keyd.toml: {why}")


def test_a_directory_that_is_not_in_order_ends_with_exit_code_78(config_directory: Path) -> None:
    (config_directory / "keys").mkdir(parents=True)
    (config_directory / "keys" / "mine.toml").write_text("location = 'a.pem'")
    code, lines, said = checked()
    assert (code, lines) == (78, [])
    assert "mine.toml is not named by a signature, 16 hexadecimal digits" in said


def test_a_key_whose_ciphertexts_are_too_long_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Long(PemKey):
        def encrypt(self, payload: bytes) -> bytes:
            return super().encrypt(payload) + bytes(500)

    said, failure = _with_key(Long, tmp_path, monkeypatch, capsys)
    assert said == (
        "wrong: configuration: shelf shelf:a: "
        "the encrypted key would have 628 octets, 512 are allowed\n"
    )
    assert failure == "1 of 1 keys cannot be used"


def test_a_key_that_gives_back_something_else_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Other(PemKey):
        def decrypt(self, ciphertext: bytes) -> bytes:
            return super().decrypt(ciphertext)[::-1]

    said, _ = _with_key(Other, tmp_path, monkeypatch, capsys)
    assert "what was encrypted came back as something else" in said


def test_a_key_that_fails_in_its_own_way_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken(PemKey):
        def decrypt(self, ciphertext: bytes) -> bytes:
            raise ZeroDivisionError(PASSPHRASE)

    said, _ = _with_key(Broken, tmp_path, monkeypatch, capsys)
    assert "the key module failed with ZeroDivisionError\n" in said
    assert PASSPHRASE not in said


def test_a_key_that_is_slower_than_the_deadline_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said, _ = _with_key(PemKey, tmp_path, monkeypatch, capsys, deadline=0.000_000_1)
    assert said.endswith("0.0 s to decrypt, longer than the deadline, 1e-07 s\n")


def test_keys_are_closed_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    other_key: PemKey,
) -> None:
    shelf = installed_shelf(tmp_path, monkeypatch)
    shelf.keys["shelf:a"] = other_key._private_key, None
    directory = KeyDirectory(tmp_path / "keys")
    directory.add("0" * 16, KeyReference("shelf", "shelf:a"))
    keys = (KeyReference("shelf", "shelf:a"),)
    said, failure = reported(Config(directory.path, os.devnull, keyring=False, keys=keys), capsys)
    assert [line.partition(":")[0] for line in said.splitlines()] == ["ok", "wrong"]
    assert failure == "1 of 2 keys cannot be used"
    assert [each.closed.is_set() for each in shelf.opened] == [True, True]


def _with_key(
    kind: type[PemKey],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    deadline: float = 60,
) -> tuple[str, str]:
    """What is said of a key of that kind."""

    def open_key(self: Shelf, location: str, passphrase: Secret | None) -> Key:
        return kind(rsa.generate_private_key(65537, 1024), location)

    monkeypatch.setattr(installed_shelf(tmp_path, monkeypatch), "open", open_key)
    keys = (KeyReference("shelf", "shelf:a"),)
    config = Config(tmp_path / "keys", os.devnull, keyring=False, deadline=deadline, keys=keys)
    return reported(config, capsys)
