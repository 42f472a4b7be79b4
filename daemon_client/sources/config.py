"""The configuration file, ~/.config/ecryptfs-keyd/config.toml. Everything in it may be left out.

device = "/dev/ecryptfs"
wait = false                    # whether to wait for a device that is not there, or goes away
keyring = true                  # whether to look for tokens in the keyring
key_directory = "keys"          # relative to the configuration file
deadline = 2.5                  # seconds from reading a request to its answer
at_once = 4                     # requests that one key store works on at a time

[[key]]                         # any number of these
module = "openssl"
location = "key.pem"
passphrase = "file:passphrase"  # or fd:, askpass:, credential:, prompt
"""

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon_client.daemon import AT_ONCE, DEADLINE
from daemon_client.key import KeyOpenError
from daemon_client.sources.reference import KeyReference, from_table

DEFAULT_DEVICE = "/dev/ecryptfs"
_DEADLINE_MIN, _DEADLINE_MAX = 0.01, 3600
_AT_ONCE_MAX = 1024


class ConfigError(Exception):
    """The configuration is wrong; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Config:
    """What the daemon is to do; each field is described in this module's header."""

    key_directory: Path
    device: str = DEFAULT_DEVICE
    wait: bool = False
    keyring: bool = True
    deadline: float = DEADLINE
    at_once: int = AT_ONCE
    keys: tuple[KeyReference, ...] = ()


def default_directory() -> Path:
    """Where a user's configuration is (XDG base directory specification).

    Raises ConfigError where the user has no home.
    """
    given = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    if given.is_absolute():  # the specification has others ignored
        return given / "ecryptfs-keyd"
    try:
        return Path.home() / ".config" / "ecryptfs-keyd"
    except RuntimeError:
        raise ConfigError(
            "this user has no home directory: set HOME, or name a configuration with --config"
        ) from None


def load_config(path: Path | None) -> Config:
    """Read a configuration file; without a path the user's own, if there is one.

    Raises ConfigError.
    """
    file = path or default_directory() / "config.toml"
    try:
        with file.open("rb") as opened:
            table = tomllib.load(opened)
    except FileNotFoundError:
        if path is not None:
            raise ConfigError(f"the configuration file {file} does not exist") from None
        table = {}
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from None
    # Relative paths in it are meant from where it is.
    base = file.parent.absolute()
    try:
        return _config(table, base)
    except (ConfigError, KeyOpenError) as error:
        raise ConfigError(f"{file}: {error}") from None


def _config(table: dict[str, Any], base: Path) -> Config:
    values: dict[str, Any] = {"key_directory": base / "keys"}
    for name, value in table.items():
        if name not in _READERS:
            raise ConfigError(f"there is no {name!r}, but: {', '.join(_READERS)}")
        field, read = _READERS[name]
        values[field] = read(name, value, base)
    return Config(**values)


def _text(name: str, value: object, base: Path) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ConfigError(f"{name} = is followed by a text in quotes, free of NULs")
    return value


def _path(name: str, value: object, base: Path) -> Path:
    return base / os.path.expanduser(_text(name, value, base))


def _device(name: str, value: object, base: Path) -> str:
    return str(_path(name, value, base))


def _choice(name: str, value: object, base: Path) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{name} = is followed by true or false")
    return value


def _seconds(name: str, value: object, base: Path) -> float:
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not _DEADLINE_MIN <= value <= _DEADLINE_MAX
    ):
        raise ConfigError(f"{name} = is followed by {_DEADLINE_MIN} to {_DEADLINE_MAX} seconds")
    return float(value)


def _count(name: str, value: object, base: Path) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _AT_ONCE_MAX:
        raise ConfigError(f"{name} = is followed by a number from 1 to {_AT_ONCE_MAX}")
    return value


def _keys(name: str, value: object, base: Path) -> tuple[KeyReference, ...]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise ConfigError("keys are tables, each begun by a line [[key]]")
    return tuple(from_table(each, base) for each in value)


_READERS = {
    "device": ("device", _device),
    "wait": ("wait", _choice),
    "keyring": ("keyring", _choice),
    "key_directory": ("key_directory", _path),
    "deadline": ("deadline", _seconds),
    "at_once": ("at_once", _count),
    "key": ("keys", _keys),
}
