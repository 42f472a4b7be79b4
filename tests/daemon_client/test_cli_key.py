"""ecryptfs-keyd key, as it is run. Whatever it prints, no passphrase is in it."""

import json
import os
import pty
import select
import subprocess
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from daemon_client.cli.main import main
from daemon_client.modules.openssl import OpenSsl, load_key
from daemon_client.secret import Secret
from daemon_client.sources import keyring
from daemon_client.sources.tokens import parse_token
from ecryptfs_cuse.wire.auth_token import PrivateKeyToken, build_private_key_token
from tests.client import PATIENCE
from tests.daemon_client.fresh_key import locked, pem, private_key, signature
from tests.daemon_client.test_cli import COMMAND
from tests.daemon_client.test_keyring import removed_in_the_end
from tests.daemon_client.test_secret import PASSPHRASE, program
from tests.daemon_client.third_party import install


def keyd(*arguments: str, pass_fds: Sequence[int] = ()) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        pass_fds=pass_fds,
        start_new_session=True,
    )
    assert PASSPHRASE not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def refusal(*arguments: str, code: int = 78, pass_fds: Sequence[int] = ()) -> str:
    """What it says when it ends with that exit code and nothing on standard output."""
    done = keyd(*arguments, pass_fds=pass_fds)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    return done.stderr


def typed(lines: Sequence[str], *arguments: str) -> tuple[int, str, str]:
    """Run it on a terminal of its own, where a person types a line whenever it asks for one.

    Its exit code, standard output, and what the terminal has shown.
    """
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", *COMMAND, *arguments],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    shown, left = b"", list(lines)
    try:
        while select.select([ours], [], [], PATIENCE)[0]:
            try:
                shown += os.read(ours, 4096)
            except OSError:  # the terminal's last user has gone
                break
            if left and shown.count(b"Passphrase for") > len(lines) - len(left):
                os.write(ours, left.pop(0).encode() + b"\n")
        out = process.communicate(timeout=PATIENCE)[0].decode()
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert left == []
    assert not any(line in out + shown.decode() for line in lines)
    assert b"Traceback" not in shown
    return process.returncode, out, shown.decode()


__all__ = ["locked", "pem", "private_key", "signature"]  # fixtures


@pytest.fixture(autouse=True)
def in_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def pin(tmp_path: Path) -> Path:
    (tmp_path / "pin").write_text(PASSPHRASE + "\n")
    return tmp_path / "pin"


def rows(*options: str) -> dict[str, list[dict[str, str | None]]]:
    """What key list --json says, by signature."""
    done = keyd(*options, "key", "list", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, list[dict[str, str | None]]] = {}
    for row in json.loads(done.stdout):
        found.setdefault(row["signature"], []).append(row)
    return found


def payload(signature: str) -> bytes | None:
    """The token in the keyring."""
    serial = keyring.find(signature)
    return None if serial is None else bytes(keyring.read(serial))


def test_a_key_is_added_shown_listed_and_removed(
    pem: Path, signature: str, config_directory: Path
) -> None:
    added = keyd("key", "add", "key.pem")
    assert (added.returncode, added.stdout) == (0, f"{signature}\n")
    assert added.stderr == f"{signature}: RSA, 1024 bits, {pem}\n"
    listed = keyd("key", "list")
    assert f"{signature}  directory  openssl  {pem}\n" in listed.stdout
    shown = keyd("key", "show", signature)
    assert shown.returncode == 0
    assert shown.stdout == (
        f"signature:  {signature}\n"
        "place:      directory\n"
        "module:     openssl\n"
        f"location:   {pem}\n"
        "passphrase: none\n"
        f"key:        RSA, 1024 bits, {pem}\n"
    )
    removed = keyd("key", "remove", signature)
    assert (removed.returncode, removed.stdout) == (0, "")
    assert removed.stderr == f"removed from the directory: {signature}\n"
    assert pem.exists()
    assert list((config_directory / "keys").iterdir()) == []
    assert signature not in rows()


def test_the_list_for_programs_is_json(pem: Path, signature: str) -> None:
    keyd("key", "add", "key.pem")
    assert rows("--no-keyring") == {
        signature: [
            {
                "signature": signature,
                "place": "directory",
                "module": "openssl",
                "location": str(pem),
                "passphrase": None,
            }
        ]
    }


def test_nothing_is_listed_where_nothing_is() -> None:
    assert json.loads(keyd("--no-keyring", "key", "list", "--json").stdout) == []
    done = keyd("--no-keyring", "key", "list")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_key_of_the_configuration_is_opened_for_its_signature(
    pem: Path, signature: str, tmp_path: Path
) -> None:
    (tmp_path / "keyd.toml").write_text(
        'keyring = false\n[[key]]\nlocation = "key.pem"\n[[key]]\nlocation = "none.pem"'
    )
    options = ("--config", "keyd.toml")
    listed = keyd(*options, "key", "list")
    assert listed.returncode == 0
    assert listed.stdout.splitlines() == [
        f"{signature}  configuration  openssl  {pem}",
        f"{'?' * 16}  configuration  openssl  {tmp_path}/none.pem",
    ]
    assert "none.pem does not exist" in listed.stderr
    shown = keyd(*options, "key", "show", signature)
    assert shown.returncode == 0
    assert f"location:   {pem}\n" in shown.stdout
    assert "what the configuration file names is removed there" in refusal(
        *options, "key", "remove", signature, code=1
    )


def test_a_key_is_added_to_the_keyring_with_its_passphrase(
    locked: Path, pin: Path, signature: str, config_directory: Path
) -> None:
    added = keyd("key", "add", "locked.pem", "--passphrase", "file:pin", "--to", "keyring")
    assert (added.returncode, added.stdout) == (0, f"{signature}\n"), added.stderr
    assert not (config_directory / "keys").exists()
    octets = payload(signature)
    assert octets is not None
    blob = OpenSsl().build_blob(str(locked), Secret(PASSPHRASE.encode()))
    assert parse_token(signature, octets) == PrivateKeyToken(signature, "openssl", blob)
    assert rows()[signature] == [
        {
            "signature": signature,
            "place": "keyring",
            "module": "openssl",
            "location": str(locked),
            "passphrase": "in the token",
        }
    ]
    assert signature not in rows("--no-keyring")
    shown = keyd("key", "show", signature)
    assert f"key:        RSA, 1024 bits, {locked}\n" in shown.stdout
    removed = keyd("key", "remove", signature)
    assert removed.stderr == f"removed from the keyring: {signature}\n"
    assert payload(signature) is None


def test_a_key_may_be_in_both_places_and_is_removed_from_both(pem: Path, signature: str) -> None:
    for to in ("directory", "keyring"):
        assert keyd("key", "add", "key.pem", "--to", to).returncode == 0
    assert [row["place"] for row in rows()[signature]] == ["directory", "keyring"]
    assert keyd("key", "show", signature).stdout.count("signature: ") == 2
    removed = keyd("key", "remove", signature)
    assert removed.returncode == 0
    assert removed.stderr.splitlines() == [
        f"removed from the directory: {signature}",
        f"removed from the keyring: {signature}",
    ]
    assert signature not in rows()


def test_the_directory_keeps_the_source_of_a_passphrase_and_finds_it_from_anywhere(
    locked: Path,
    pin: Path,
    signature: str,
    config_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert keyd("key", "add", "locked.pem", "--passphrase", "file:pin").returncode == 0
    file = config_directory / "keys" / f"{signature}.toml"
    assert tomllib.loads(file.read_text()) == {
        "module": "openssl",
        "location": str(locked),
        "passphrase": f"file:{pin}",
    }
    monkeypatch.chdir("/")
    assert keyd("key", "show", signature).returncode == 0


def test_a_token_of_an_unknown_module_is_listed_and_can_be_removed(signature: str) -> None:
    token = PrivateKeyToken(signature, "tspi", bytes(16))
    keyring.add(signature, build_private_key_token(token))
    assert rows()[signature][0]["module"] == "tspi"
    assert rows()[signature][0]["location"] == "unknown"
    assert "there is no key module 'tspi'" in refusal("key", "show", signature)
    assert keyd("key", "remove", signature).returncode == 0
    assert payload(signature) is None


@pytest.mark.parametrize("to", ["keyring", "nowhere"])
def test_a_passphrase_comes_through_a_descriptor(
    locked: Path, tmp_path: Path, signature: str, to: str
) -> None:
    reading, writing = os.pipe()
    try:
        os.write(writing, PASSPHRASE.encode() + b"\n")
        os.close(writing)
        command = "add" if to == "keyring" else "generate"
        location = "locked.pem" if to == "keyring" else "new.pem"
        done = keyd(
            *("key", command, location, "--passphrase", f"fd:{reading}", "--to", to),
            pass_fds=[reading],
        )
    finally:
        os.close(reading)
    assert done.returncode == 0, done.stderr
    made = load_key(tmp_path / location, Secret(PASSPHRASE.encode()))
    assert done.stdout == f"{made.signature}\n"
    assert (payload(made.signature) is not None) == (to == "keyring")


def test_a_passphrase_comes_from_a_program(locked: Path, tmp_path: Path, signature: str) -> None:
    asks = program(tmp_path / "asks", 'echo "$1" >asked', f"echo '{PASSPHRASE}'")
    done = keyd("key", "add", "locked.pem", "--passphrase", f"askpass:{asks}")
    assert (done.returncode, done.stdout) == (0, f"{signature}\n"), done.stderr
    assert (tmp_path / "asked").read_text() == f"Passphrase for openssl {locked}:\n"


def test_a_passphrase_comes_from_a_credential(
    locked: Path, pin: Path, signature: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("key", "add", "locked.pem", "--passphrase", "credential:pin")
    assert "$CREDENTIALS_DIRECTORY is not set" in refusal(*arguments)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(pin.parent))
    done = keyd(*arguments)
    assert (done.returncode, done.stdout) == (0, f"{signature}\n"), done.stderr


def test_a_passphrase_is_typed_once_and_not_shown(locked: Path, signature: str) -> None:
    code, out, shown = typed(
        [PASSPHRASE], "key", "add", "locked.pem", "--passphrase", "prompt", "--to", "keyring"
    )
    assert (code, out) == (0, f"{signature}\n"), shown
    assert f"Passphrase for openssl {locked}: " in shown


def test_a_wrong_passphrase_that_is_typed_is_refused(locked: Path, signature: str) -> None:
    code, out, shown = typed(["not it"], "key", "add", "locked.pem", "--passphrase", "prompt")
    assert (code, out) == (78, "")
    assert "the passphrase is wrong, or the file is damaged" in shown
    assert "not it" not in shown


def test_a_new_keys_passphrase_is_typed_twice(tmp_path: Path) -> None:
    arguments = ("key", "generate", "new.pem", "--passphrase", "prompt", "--to", "nowhere")
    code, out, shown = typed([PASSPHRASE, PASSPHRASE + "!"], *arguments)
    assert (code, out) == (78, "")
    assert "the passphrases differ: no key was made" in shown
    assert not (tmp_path / "new.pem").exists()
    code, out, shown = typed([PASSPHRASE, PASSPHRASE], *arguments)
    assert code == 0, shown
    assert "The same once more:" in shown
    assert out == f"{load_key('new.pem', Secret(PASSPHRASE.encode())).signature}\n"


def test_a_key_is_made_listed_and_served(tmp_path: Path) -> None:
    made = keyd("key", "generate", "new.pem")
    assert made.returncode == 0, made.stderr
    key = load_key(tmp_path / "new.pem")
    assert (made.stdout, key.bits) == (f"{key.signature}\n", 2048)
    assert rows("--no-keyring")[key.signature][0]["location"] == str(tmp_path / "new.pem")
    assert keyd("--show-signatures").stdout == made.stdout
    before = (tmp_path / "new.pem").read_bytes()
    assert "new.pem exists already, and is left as it is" in refusal("key", "generate", "new.pem")
    assert (tmp_path / "new.pem").read_bytes() == before


def test_a_key_is_made_for_the_keyring_or_for_nobody(tmp_path: Path, pin: Path) -> None:
    made = keyd(
        *("key", "generate", "a.pem", "--to", "keyring"),
        *("--passphrase", "file:pin", "--bits", "2056"),
    )
    with removed_in_the_end(made.stdout.strip()):
        assert made.returncode == 0, made.stderr
        assert payload(made.stdout.strip()) is not None
        assert load_key("a.pem", Secret(PASSPHRASE.encode())).bits == 2056
    made = keyd("key", "generate", "b.pem", "--to", "nowhere")
    assert made.returncode == 0, made.stderr
    assert made.stdout.strip() not in rows()
    assert load_key("b.pem").signature == made.stdout.strip()


def test_a_key_module_of_another_package_is_used_as_ours_are(
    pem: Path, signature: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "my_keys.py").write_text(
        "from daemon_client.modules.openssl import OpenSsl\n\n"
        "class MyKeys(OpenSsl):\n"
        '    alias = "mine"\n'
    )
    assert "mine:key.pem does not exist" in refusal("key", "add", "mine:key.pem")
    install(packages, "mine", "my_keys:MyKeys")
    monkeypatch.setenv("PYTHONPATH", str(packages))
    for to in ("directory", "keyring"):
        added = keyd("key", "add", "mine:key.pem", "--to", to)
        assert (added.returncode, added.stdout) == (0, f"{signature}\n"), added.stderr
    assert [row["module"] for row in rows()[signature]] == ["mine", "mine"]
    assert keyd("--show-signatures", "--key", "mine:key.pem").stdout == f"{signature}\n"
    assert keyd("key", "generate", "mine:new.pem", "--to", "nowhere").returncode == 0
    assert "there are: mine, openssl" in refusal(
        "--config", str(_file("keyd.toml", "[[key]]\nlocation='a'\nmodule='none'")), "key", "list"
    )


def test_a_key_module_that_does_not_start_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signature: str
) -> None:
    install(tmp_path, "broken", "no_such_package:Keys")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "the key module broken needs no_such_package: pip install" in refusal(
        "key", "add", "broken:key"
    )
    token = PrivateKeyToken(signature, "broken", b"")
    keyring.add(signature, build_private_key_token(token))
    assert rows()[signature][0]["location"] == "unknown"


def test_the_help_teaches_with_examples() -> None:
    for command, example in (
        ("add", "ecryptfs-keyd key add key.pem --passphrase prompt --to keyring"),
        ("generate", "ecryptfs-keyd key generate tpm2:key.tss"),
    ):
        shown = CliRunner().invoke(main, ["key", command, "--help"])
        assert shown.exit_code == 0
        assert example in shown.output


def _file(name: str, content: str) -> Path:
    path = Path(name)
    path.write_text(content)
    return path
