"""A TPM 1.2 in software with one sealing key: what ecryptfsd's key module tspi needs.

swtpm is the chip, behind a Unix socket. tcsd is the service that owns it; it listens on a TCP port,
for programs of this machine only.
"""

import os
import re
import select
import shutil
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

from tests.client import PATIENCE
from tests.closing import Closing
from tests.ecryptfsd.programs import require

MODULE_ALIAS = "tspi"
_TCSD_USER = "tss"


class SoftwareTpm(Closing):
    """A TPM with an owner and one key; all its files are in ``directory``.

    key: the UUID under which the key is registered.
    environment: what a program needs in its environment to find TPM and key.
    """

    def __init__(self, directory: Path) -> None:
        require("swtpm", "swtpm_setup", "tcsd", "setpriv")
        require("tpm_takeownership", "ecryptfs-generate-tpm-key")
        # tcsd runs as a user of its own, who has to reach its files.
        shutil.chown(directory, group=_TCSD_USER)
        directory.chmod(0o710)
        with ExitStack() as started:
            chip = _manufacture(directory, started)
            self.environment = {
                "TSS_TCSD_PORT": str(_start_tcsd(directory, chip, started)),
                "TSS_USER_PS_FILE": str(directory / "user.data"),
            }
            run_program("tpm_takeownership", "-y", "-z", environment=self.environment)
            said = run_program("ecryptfs-generate-tpm-key", environment=self.environment)
            self.key = _uuid(said)
            self._started = started.pop_all()

    def close(self) -> None:
        """End both programs."""
        self._started.close()


def _manufacture(directory: Path, started: ExitStack) -> Path:
    """Make a chip and start it; its socket."""
    state = directory / "chip"
    state.mkdir()
    run_program(
        "swtpm_setup", "--tpm-state", str(state), "--createek", "--overwrite", "--runas", "root"
    )
    path = directory / "chip.socket"
    # The socket listens before the chip runs: nobody has to wait for it.
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        shutil.chown(path, group=_TCSD_USER)
        path.chmod(0o660)
        listener.listen()
        start_program(
            started,
            *("swtpm", "socket", "--tpmstate", f"dir={state}"),
            *("--server", f"type=unixio,fd={listener.fileno()}"),
            *("--flags", "not-need-init,startup-clear"),
            pass_fds=(listener.fileno(),),
        )
    return path


def _start_tcsd(directory: Path, chip: Path, started: ExitStack) -> int:
    """Start tcsd on a chip's socket, and wait until it says that it serves; its port."""
    port = _free_port()
    files = directory / "tcsd"
    files.mkdir(0o700)
    shutil.chown(files, _TCSD_USER, _TCSD_USER)
    configuration = directory / "tcsd.conf"
    configuration.write_text(f"port = {port}\nsystem_ps_file = {files}/system.data\n")
    # It refuses a configuration with another owner or mode.
    shutil.chown(configuration, group=_TCSD_USER)
    configuration.chmod(0o640)
    tcsd = start_program(
        started,
        *(f"--reuid={_TCSD_USER}", f"--regid={_TCSD_USER}", "--clear-groups"),
        *("stdbuf", "--output=L", "tcsd", "-e", "-f", "-c", str(configuration)),
        environment={"TCSD_USE_TCP_DEVICE": "1", "TCSD_UN_SOCKET_DEVICE_PATH": str(chip)},
    )
    assert tcsd.stdout is not None
    said = []
    while select.select([tcsd.stdout], [], [], PATIENCE)[0] and (line := tcsd.stdout.readline()):
        if b"up and running" in line:
            return port
        said.append(line.decode())
    raise AssertionError(f"tcsd does not serve: {''.join(said)}")


def start_program(
    started: ExitStack,
    *command: str,
    environment: dict[str, str] | None = None,
    pass_fds: tuple[int, ...] = (),
) -> subprocess.Popen[bytes]:
    """Start a program, after options of setpriv; ``started`` ends it, and so does our own death."""
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig=KILL", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
        env={**os.environ, **(environment or {})},
        pass_fds=pass_fds,
    )

    def end() -> None:
        process.terminate()
        try:
            process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            process.wait()

    started.callback(end)
    return process


def run_program(*command: str, environment: dict[str, str] | None = None) -> str:
    """Run a program that has to succeed; what it says."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(environment or {})},
        timeout=PATIENCE,
        text=True,
    )
    assert done.returncode == 0, f"{command[0]} failed: {done.stdout}"
    return done.stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _uuid(said: str) -> bytes:
    found = re.search(r"tspi_uuid parameter\): ([0-9a-f]{32})", said)
    assert found is not None, f"ecryptfs-generate-tpm-key names no key: {said}"
    return bytes.fromhex(found[1])
