"""The unit for systemd: what it says, and the daemon under a real user's service manager."""

import configparser
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client import PATIENCE
from tests.conftest import let_everyone_in
from tests.daemon_client.user_manager import AS_USER, NAME, UNIT, UserManager
from tests.mounted import COMMAND, MountedDevice

FILE_KEY = bytes(range(32)).hex()

# In a user's manager these make a user namespace, or are of no effect, or keep it from starting.
FORBIDDEN = re.compile(
    "Private|Protect|ReadOnlyPaths|ReadWritePaths|InaccessiblePaths|ExecPaths|NoExecPaths|Bind"
    "|TemporaryFileSystem|RootDirectory|RootImage|MountAPIVFS|CapabilityBoundingSet"
    "|AmbientCapabilities|ProcSubset|DynamicUser|User|Group|RestrictFileSystems"
)


@pytest.fixture
def directory() -> Iterator[Path]:
    """Not tmp_path: what is above it every other test run on the machine closes to other users."""
    with tempfile.TemporaryDirectory(prefix="unit-") as made:
        let_everyone_in(Path(made))
        yield Path(made)


@pytest.fixture
def manager(directory: Path) -> Iterator[UserManager]:
    with UserManager(directory) as started:
        started.configure(f'device = "{directory}/mount/dev/ecryptfs"\n')
        yield started


@pytest.fixture
def device(directory: Path) -> Iterator[MountedDevice]:
    mounted = MountedDevice(directory / "mount", "--allow-other", "--mode", "0666", "-v")
    yield mounted
    mounted.clean_up()


def service() -> dict[str, list[str]]:
    """The section [Service]: each option with its values."""
    parser = configparser.RawConfigParser(strict=False, delimiters="=", comment_prefixes="#")
    parser.optionxform = str  # type: ignore[method-assign,assignment]  # its documented use
    parser.read(UNIT)
    return {name: value.split() for name, value in parser.items("Service")}


def request(device: MountedDevice, what: str, *arguments: str, given: str = "") -> str:
    """What the daemon of the user answers to a request of the user's."""
    done = subprocess.run(
        [*AS_USER, *COMMAND, "request", what, "--mount", str(device.mountpoint), *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def check_served(device: MountedDevice, signature: str) -> None:
    """A file key is encrypted and decrypted."""
    encrypted = request(device, "encrypt", "--sig", signature, "--key", FILE_KEY)
    decrypted = request(device, "decrypt", "--sig", signature, "--encrypted", "-", given=encrypted)
    assert decrypted == FILE_KEY


def status_of(process: str) -> dict[str, str]:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def verify(unit: str, directory: Path) -> str:
    """What systemd has to say about a unit with a program that is there."""
    unit, count = re.subn("^ExecStart=ecryptfs-keyd ", "ExecStart=/bin/true ", unit, flags=re.M)
    assert count == 1
    (directory / NAME).write_text(unit)
    # Its path is short, for sockets of the machine's own units: theirs have 107 octets at most.
    with tempfile.TemporaryDirectory() as runtime:
        done = subprocess.run(
            ["systemd-analyze", "--user", "--man=no", "verify", str(directory / NAME)],
            env={**os.environ, "XDG_RUNTIME_DIR": runtime},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    return done.stdout + done.stderr + (f"exit {done.returncode}" if done.returncode else "")


def test_systemd_accepts_every_line_of_the_unit(tmp_path: Path) -> None:
    text = UNIT.read_text()
    assert verify(text, tmp_path) == ""
    assert "Unknown" in verify(text.replace("NoNewPrivileges=", "NoNewPrivilege="), tmp_path)


def test_no_option_puts_the_daemon_into_another_user_namespace() -> None:
    names = list(service())
    assert "NoNewPrivileges" in names
    assert [name for name in names if FORBIDDEN.match(name)] == []


def test_it_serves_keys_of_the_directory_and_of_the_keyring_in_its_sandbox(
    manager: UserManager, device: MountedDevice
) -> None:
    listed = manager.keyd("key", "generate", str(manager.home / "one.pem")).strip()
    token = manager.keyd("key", "generate", str(manager.home / "two.pem"), "--to", "keyring")
    manager.systemctl("start", NAME)
    try:
        assert manager.systemctl("is-active", NAME) == "active\n"
        assert manager.show("StatusText") == ["1 key and those of the keyring"]
        check_served(device, listed)
        check_served(device, token.strip())
    finally:
        manager.keyd("key", "remove", token.strip())
    (process,) = manager.show("MainPID")
    status = status_of(process)
    assert (status["NoNewPrivs"], status["Seccomp"], status["Umask"]) == ("1", "2", "0077")
    assert os.readlink(f"/proc/{process}/ns/user") == os.readlink("/proc/self/ns/user")


def test_a_passphrase_comes_from_a_credential(
    directory: Path, manager: UserManager, device: MountedDevice
) -> None:
    secret, pem = directory / "passphrase", manager.home / "key.pem"
    secret.write_text("precious")
    secret.chmod(0o644)
    manager.keyd("key", "generate", str(pem), "--to", "nowhere", "--passphrase", f"file:{secret}")
    manager.configure(
        f'device = "{device.path}"\n[[key]]\nlocation = "{pem}"\npassphrase = "credential:pem"\n'
    )
    manager.override(f"[Service]\nLoadCredential=pem:{secret}\n")
    manager.systemctl("start", NAME)
    assert manager.show("StatusText") == ["1 key and those of the keyring"]


def test_reload_makes_a_new_key_known(manager: UserManager, device: MountedDevice) -> None:
    manager.systemctl("start", NAME)
    signature = manager.keyd("key", "generate", str(manager.home / "key.pem")).strip()
    manager.systemctl("reload", NAME)
    manager.wait("StatusText", "1 key and those of the keyring")
    check_served(device, signature)


def test_stop_has_the_daemon_say_quit(manager: UserManager, device: MountedDevice) -> None:
    manager.systemctl("start", NAME)
    manager.systemctl("stop", NAME)
    assert manager.show("ActiveState", "Result", "ExecMainStatus") == ["inactive", "success", "0"]
    device.process.terminate()
    said = device.process.communicate(timeout=PATIENCE)[1].decode()
    assert said.index("HELO") < said.index("QUIT") < said.index("daemon gone")


def test_it_holds_nobody_up_until_there_is_a_device(directory: Path, manager: UserManager) -> None:
    manager.systemctl("start", NAME)
    assert manager.show("ActiveState", "StatusText") == [
        "active",
        f"waiting for {directory}/mount/dev/ecryptfs",
    ]
    device = MountedDevice(directory / "mount", "--allow-other", "--mode", "0666")
    try:
        manager.wait("StatusText", "0 keys and those of the keyring")
    finally:
        device.clean_up()


def test_a_wrong_configuration_is_not_tried_again(manager: UserManager) -> None:
    manager.configure('[[key]]\nlocation = "absent.pem"\n')
    assert manager.try_systemctl("start", NAME).returncode != 0
    assert manager.show("ActiveState", "ExecMainStatus", "NRestarts") == ["failed", "78", "0"]


def test_after_a_crash_it_is_started_again(manager: UserManager, device: MountedDevice) -> None:
    manager.systemctl("start", NAME)
    manager.systemctl("kill", "--signal=KILL", NAME)
    manager.wait("NRestarts", "1")
    manager.wait("ActiveState", "active")
