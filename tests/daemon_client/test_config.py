import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from daemon_client.daemon import AT_ONCE, DEADLINE
from daemon_client.sources import config
from daemon_client.sources.config import (
    DEFAULT_DEVICE,
    Config,
    ConfigError,
    default_directory,
    load_config,
)
from daemon_client.sources.reference import KeyReference
from tests.client import PATIENCE
from tests.daemon_client.test_secret import PASSPHRASE, everything_in


def loaded(tmp_path: Path, text: str) -> Config:
    file = tmp_path / "keyd.toml"
    file.write_text(text)
    return load_config(file)


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        load_config(path)
    assert PASSPHRASE not in everything_in(refused.value)
    assert str(path) in str(refused.value)
    return str(refused.value)


def test_without_a_file_there_are_defaults(config_directory: Path) -> None:
    assert load_config(None) == Config(key_directory=config_directory / "keys")
    assert load_config(None) == Config(
        config_directory / "keys", DEFAULT_DEVICE, False, True, DEADLINE, AT_ONCE, ()
    )


def test_the_users_own_file_is_found(config_directory: Path) -> None:
    config_directory.mkdir(parents=True)
    (config_directory / "config.toml").write_text("wait = true")
    assert load_config(None).wait


@pytest.mark.parametrize("xdg", [None, "", "relative"])
def test_without_a_path_in_xdg_it_is_below_the_home_directory(
    monkeypatch: pytest.MonkeyPatch, xdg: str | None
) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    if xdg is not None:
        monkeypatch.setenv("XDG_CONFIG_HOME", xdg)
    assert default_directory() == Path("/home/ada/.config/ecryptfs-keyd")


def test_everything_can_be_set_relative_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    config = loaded(
        tmp_path,
        """
        device = "ecryptfs"
        wait = true
        keyring = false
        key_directory = "~/keys"
        deadline = 1
        at_once = 7
        [[key]]
        location = "a.pem"
        [[key]]
        module = "openssl"
        location = "/b.pem"
        passphrase = "file:pin"
        """,
    )
    assert config == Config(
        key_directory=Path("/home/ada/keys"),
        device=f"{tmp_path}/ecryptfs",
        wait=True,
        keyring=False,
        deadline=1.0,
        at_once=7,
        keys=(
            KeyReference("openssl", f"{tmp_path}/a.pem"),
            KeyReference("openssl", "/b.pem", f"file:{tmp_path}/pin"),
        ),
    )
    assert isinstance(config.deadline, float)


def test_a_relative_path_of_the_file_itself_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("keyd.toml").write_text('[[key]]\nlocation = "a.pem"')
    config = load_config(Path("keyd.toml"))
    assert config.keys[0].location == f"{tmp_path}/a.pem"
    assert config.key_directory == tmp_path / "keys"


def test_an_example_of_every_setting_is_in_the_modules_header(tmp_path: Path) -> None:
    assert config.__doc__ is not None
    example = loaded(tmp_path, config.__doc__.partition("\n")[2])
    assert example == Config(
        device=DEFAULT_DEVICE,
        wait=False,
        keyring=True,
        key_directory=tmp_path / "keys",
        deadline=DEADLINE,
        at_once=4,
        keys=(KeyReference("openssl", f"{tmp_path}/key.pem", f"file:{tmp_path}/passphrase"),),
    )
    assert all(each.name.rstrip("s") in config.__doc__ for each in fields(Config))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("devise = 'a'", "there is no 'devise', but: device, wait, keyring, key_directory, dead"),
        ("device = 1", "device = is followed by a text in quotes"),
        ("device = ''", "device = is followed by a text in quotes"),
        ('key_directory = "a\\u0000b"', "key_directory = is followed by a text in quotes, free"),
        ("wait = 1", "wait = is followed by true or false"),
        ("keyring = 'no'", "keyring = is followed by true or false"),
        ("deadline = 0", "deadline = is followed by 0.01 to 3600 seconds"),
        ("deadline = 3601", "deadline ="),
        ("deadline = nan", "deadline ="),
        ("deadline = inf", "deadline ="),
        ("deadline = true", "deadline ="),
        ("deadline = '1'", "deadline ="),
        ("at_once = 0", "at_once = is followed by a number from 1 to 1024"),
        ("at_once = 1025", "at_once ="),
        ("at_once = 2.0", "at_once ="),
        ("at_once = true", "at_once ="),
        ("key = 'a.pem'", "keys are tables, each begun by a line [[key]]"),
        ("key = ['a.pem']", "keys are tables"),
        ("[key]\nlocation = 'a.pem'", "keys are tables"),
        ("[[key]]", "a key needs location ="),
        ("[[key]]\nlocation = 'a'\nmodule = 'none'", "there is no key module 'none'"),
        ("[[key]]\nlocation = 'a'\nmodule = 'Openssl'", "there is no key module 'Openssl'"),
        (f"[[key]]\nlocation = 'a'\npassphrase = '{PASSPHRASE}'", "is no source of a passphrase"),
        (f"[[key]]\nlocation = 'a'\npin = '{PASSPHRASE}'", "a key has no 'pin'"),
        (f"passphrase = '{PASSPHRASE}'", "there is no 'passphrase'"),
        (f"passphrase = {PASSPHRASE}", "line 1"),
        (f"passphrase = '{PASSPHRASE}", "end of document"),
    ],
)
def test_what_is_wrong_is_said_with_the_file(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "keyd.toml"
    file.write_text(text)
    assert why in refusal(file)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "none.toml")
    assert "Is a directory" in refusal(tmp_path)
    (tmp_path / "latin1.toml").write_bytes(b"device = '\xfc'")
    assert "utf-8" in refusal(tmp_path / "latin1.toml")


def test_limits_themselves_are_allowed(tmp_path: Path) -> None:
    assert loaded(tmp_path, "deadline = 0.01\nat_once = 1024").at_once == 1024
    assert loaded(tmp_path, "deadline = 3600\nat_once = 1").deadline == 3600


def test_a_user_without_a_home_is_told_what_to_do() -> None:
    program = "from daemon_client.sources.config import load_config; load_config(None)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        env={},
        user=54321,  # in no list of users
        extra_groups=[],
    )
    assert "ConfigError: this user has no home directory: set HOME, or name" in done.stderr
