"""systemd as the service manager of an ordinary user, on a machine that may run another one.

It gets what it needs in the test run's own mount namespace: a cgroup of cgroup version 2 that
belongs to its user, and the directory by which it sees that systemd runs. Home, configuration and
units are in a temporary directory; the daemon's program is in ~/.local/bin, where pip has it.
"""

import os
import pwd
import select
import shutil
import socket
import subprocess
import sys
import time
import uuid
from contextlib import ExitStack
from pathlib import Path

from tests.client import PATIENCE
from tests.closing import Closing
from tests.ecryptfsd.programs import require

UNIT = Path(__file__).parent.parent.parent / "systemd" / "ecryptfs-keyd.service"
NAME = UNIT.name

# Somebody who has a name, as the manager wants.
_NOBODY = pwd.getpwnam("nobody")
AS_USER = ("setpriv", f"--reuid={_NOBODY.pw_uid}", f"--regid={_NOBODY.pw_gid}", "--clear-groups")

_MANAGER = "/usr/lib/systemd/systemd"
_SYSTEM_UNITS = Path("/usr/lib/systemd/user")
_NEEDED = (
    "app.slice",
    "basic.target",
    "exit.target",
    "paths.target",
    "shutdown.target",
    "sockets.target",
    "systemd-exit.service",
    "timers.target",
)
_CGROUPS = Path("/sys/fs/cgroup")
_BOOTED = Path("/run/systemd/system")  # sd_booted(3)

_PROGRAM = """#!{python}
from daemon_client.cli.main import main
main()
"""


class UserManager(Closing):
    """A running ``systemd --user`` with our unit. Ends with this process at the latest.

    home: the user's home directory.
    """

    def __init__(self, directory: Path) -> None:
        require("setpriv", "systemctl")
        self.home = self._make(directory / "home")
        self._runtime = self._make(directory / "run")
        self._units = directory / "units"
        self._make_units()
        program = self._make(self.home / ".local" / "bin") / "ecryptfs-keyd"
        program.write_text(_PROGRAM.format(python=sys.executable))
        program.chmod(0o755)
        self._environment = {
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "PATH": "/usr/bin:/bin",
            "SYSTEMD_UNIT_PATH": str(self._units),
            "USER": _NOBODY.pw_name,
            "XDG_RUNTIME_DIR": str(self._runtime),
        }
        with ExitStack() as made:
            self._cgroup = _make_cgroup(made)
            _pretend_booted(made)
            self._start(made)
            self._made = made.pop_all()

    def configure(self, text: str) -> None:
        """Write the daemon's configuration."""
        directory = self._make(self.home / ".config" / "ecryptfs-keyd")
        (directory / "config.toml").write_text(text)

    def override(self, text: str) -> None:
        """Change the unit, as ``systemctl --user edit`` does."""
        directory = self._units / f"{NAME}.d"
        directory.mkdir()
        (directory / "override.conf").write_text(text)
        self.systemctl("daemon-reload")

    def keyd(self, *arguments: str) -> str:
        """Run ``ecryptfs-keyd`` as the user, not as a service; what it prints."""
        return self._run(str(self.home / ".local" / "bin" / "ecryptfs-keyd"), *arguments).stdout

    def systemctl(self, *arguments: str) -> str:
        """Run ``systemctl --user`` as the user; it has to succeed."""
        done = self.try_systemctl(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def try_systemctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The same, however it ends."""
        return self._run("systemctl", "--user", *arguments)

    def show(self, *properties: str) -> list[str]:
        """What the manager knows of the daemon."""
        return [self.systemctl("show", "--value", "-p", name, NAME).strip() for name in properties]

    def wait(self, name: str, value: str) -> None:
        """Wait until a property of the daemon's is what it should become."""
        deadline = time.monotonic() + PATIENCE
        while (found := self.show(name)) != [value]:
            assert time.monotonic() < deadline, f"{name} is {found}, not {value!r}"

    def close(self) -> None:
        """End it and its services."""
        self._made.close()

    def _make(self, directory: Path) -> Path:
        """A directory of the user's, and of nobody else's."""
        for path in reversed((directory, *directory.parents)):
            if not path.exists():
                path.mkdir(0o700)
                shutil.chown(path, _NOBODY.pw_uid, _NOBODY.pw_gid)
        return directory

    def _make_units(self) -> None:
        """No unit but those that any service needs, and ours: this machine's stay out of it."""
        self._units.mkdir(0o755)
        for name in _NEEDED:
            shutil.copy(_SYSTEM_UNITS / name, self._units)
        shutil.copy(UNIT, self._units)

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*AS_USER, *command],
            env=self._environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def _start(self, made: ExitStack) -> None:
        """Start it, and wait until it says that it is ready."""
        path = str(self._runtime / "ready")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(path)
            os.chmod(path, 0o777)
            listener.settimeout(PATIENCE)
            join = f'echo $$ >{self._cgroup}/cgroup.procs && exec "$@"'
            log = made.enter_context((self._units.parent / "manager.log").open("wb"))
            process = subprocess.Popen(
                [
                    *("sh", "-c", join, "sh"),
                    # If the test run is killed, it ends its services and itself.
                    *(*AS_USER, "--pdeathsig=TERM", _MANAGER, "--user", "--unit=basic.target"),
                    "--log-target=console",
                ],
                env={**self._environment, "NOTIFY_SOCKET": path},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
            made.callback(process.wait, PATIENCE)
            made.callback(_kill, self._cgroup)
            while "READY=1" not in listener.recv(4096).decode().split("\n"):
                pass


def _make_cgroup(made: ExitStack) -> Path:
    """A cgroup that belongs to the user."""
    _mount(made, "cgroup2", _CGROUPS)
    cgroup = _CGROUPS / f"user-manager-{uuid.uuid4().hex}"
    cgroup.mkdir()
    made.callback(_remove_cgroup, cgroup)
    for path in (cgroup, *(cgroup / f"cgroup.{each}" for each in ("procs", "subtree_control"))):
        shutil.chown(path, _NOBODY.pw_uid)
    return cgroup


def _kill(cgroup: Path) -> None:
    """Kill all that is in a cgroup, and wait until it is empty."""
    (cgroup / "cgroup.kill").write_text("1")
    with (cgroup / "cgroup.events").open() as events:
        while "populated 1" in events.read():
            assert select.select([], [], [events], PATIENCE)[2], "a service does not die"
            events.seek(0)


def _remove_cgroup(cgroup: Path) -> None:
    for directory, _, _ in os.walk(cgroup, topdown=False):
        os.rmdir(directory)


def _pretend_booted(made: ExitStack) -> None:
    if not _BOOTED.is_dir():
        _BOOTED.parent.mkdir(exist_ok=True)
        _mount(made, "tmpfs", _BOOTED.parent)
        _BOOTED.mkdir()


def _mount(made: ExitStack, kind: str, where: Path) -> None:
    subprocess.run(["mount", "-t", kind, kind, str(where)], check=True)
    made.callback(subprocess.run, ["umount", str(where)], check=True)
