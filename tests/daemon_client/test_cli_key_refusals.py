"""What ecryptfs-keyd key refuses: a sentence on standard error, and an exit code."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from daemon_client.cli.main import main
from daemon_client.modules.openssl import PemKey
from tests.daemon_client.fresh_key import locked
from tests.daemon_client.test_cli_key import refusal
from tests.daemon_client.test_openssl import write_pem
from tests.daemon_client.test_secret import PASSPHRASE

__all__ = ["locked"]  # a fixture


@pytest.fixture(autouse=True)
def in_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (("add",), 2, "Missing argument '[MODULE:]LOCATION'"),
        (("add", "key.pem", "--to", "nowhere"), 2, "'nowhere' is not one of"),
        (("generate", "new.pem", "--bits", "1024"), 2, "1024 is not in the range 2048<=x<=4096"),
        (("generate", "new.pem", "--bits", "8192"), 2, "8192 is not in the range"),
        (("remove", "key.pem"), 2, "a signature is 16 lower case hexadecimal digits"),
        (("remove", "0123456789ABCDEF"), 2, "a signature is 16 lower case hexadecimal digits"),
        (("remove", "../../etc/passwd"), 2, "a signature is"),
        (("remove", "0" * 16), 1, f"{'0' * 16} is neither in "),
        (("show", "0" * 16), 1, f"there is no key '{'0' * 16}': see 'ecryptfs-keyd key list'"),
        (("add", "none.pem"), 78, "none.pem does not exist"),
        (("add", "no-module:key"), 78, "no-module:key does not exist"),
        (("add", "/"), 78, "cannot read /: Is a directory"),
        (("add", "locked.pem"), 78, "locked.pem is encrypted: say where its passphrase comes"),
        (("add", "locked.pem", "--passphrase", "file:wrong"), 78, "the passphrase is wrong, or"),
        (("add", "locked.pem", "--passphrase", "file:none"), 78, "none: No such file or directory"),
        (("add", "locked.pem", "--passphrase", PASSPHRASE), 78, "what was given is no source of"),
        (("add", "locked.pem", "--passphrase", f"pass:{PASSPHRASE}"), 78, "not given by pass:"),
        (("add", "locked.pem", "--passphrase", "fd:0"), 78, "will not find the passphrase in that"),
        (
            ("add", "locked.pem", "--passphrase", "fd:99", "--to", "keyring"),
            78,
            "from descriptor 99: Bad file descriptor",
        ),
        (
            ("add", "locked.pem", "--passphrase", "fd:0", "--to", "keyring"),
            78,
            "the passphrase from fd: is empty",
        ),
        (("add", "locked.pem", "--passphrase", "askpass:false"), 78, "false gave no passphrase"),
        (("add", "key-\udcff.pem"), 78, "is not UTF-8"),
        (("add", "key.pem", "--to", "keyring"), 78, "key.pem does not exist"),
        (("generate", "none/new.pem"), 78, "none/new.pem: No such file or directory"),
        (("generate", "locked.pem"), 78, "locked.pem exists already"),
        (("generate", "new.pem", "--passphrase", "fd:0"), 78, "will not find the passphrase"),
        (("generate", "new.pem", "--passphrase", "fd:0", "--to", "nowhere"), 78, "fd: is empty"),
    ],
)
def test_a_refusal_is_a_sentence_and_an_exit_code(
    tmp_path: Path, locked: Path, arguments: Sequence[str], code: int, why: str
) -> None:
    (tmp_path / "wrong").write_text(PASSPHRASE[:-1])
    done = CliRunner().invoke(main, ["key", *arguments])
    assert (done.exit_code, done.stdout) == (code, "")
    assert isinstance(done.exception, SystemExit)
    assert why in " ".join(done.stderr.split())
    assert PASSPHRASE[:-1] not in done.stderr
    assert not (tmp_path / "new.pem").exists()


def test_a_configuration_that_is_wrong_stops_every_command(tmp_path: Path) -> None:
    (tmp_path / "keyd.toml").write_text("devise = 'a'")
    for arguments in (
        ("list",),
        ("show", "0" * 16),
        ("remove", "0" * 16),
        ("generate", "new.pem"),
    ):
        said = refusal("--config", "keyd.toml", "key", *arguments)
        assert "keyd.toml: there is no 'devise'" in said
    assert not (tmp_path / "new.pem").exists()


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path, key: PemKey) -> None:
    signature = key.signature
    write_pem(tmp_path / "key.pem", key._private_key)
    Path("keyd.toml").write_text('key_directory = "/dev/null"')
    said = refusal("--config", "keyd.toml", "key", "add", "key.pem")
    assert f"{signature}: RSA" in said
    assert f"cannot write /dev/null/{signature}.toml: " in said
    for command in ("list", "show", "remove"):
        arguments = () if command == "list" else (signature,)
        said = refusal("--config", "keyd.toml", "key", command, *arguments)
        assert "/dev/null" in said


@pytest.mark.parametrize("command", [("add", "locked.pem"), ("generate", "new.pem")])
def test_without_a_terminal_nobody_can_be_asked(
    tmp_path: Path, locked: Path, command: Sequence[str]
) -> None:
    said = refusal("key", *command, "--passphrase", "prompt")
    assert said.endswith("there is no terminal to ask for the passphrase on\n")
    assert not (tmp_path / "new.pem").exists()
