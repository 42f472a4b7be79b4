"""The command as it is run."""

import contextlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import rsa

from daemon_client.cli.main import main
from daemon_client.modules.openssl import PemKey
from ecryptfs_cuse.core.keystore import decrypted_key, encrypted_key
from ecryptfs_cuse.serve import serve
from ecryptfs_cuse.wire.tags import FileKey, Tag64, Tag66, build_file_key, build_request
from tests.client import PATIENCE
from tests.daemon_client.scripted import HELO, QUIT, scripted
from tests.daemon_client.test_openssl import write_pem
from tests.daemon_client.trio_test import in_trio

COMMAND = (sys.executable, "-m", "daemon_client.cli.main")


@pytest.fixture
def pem(tmp_path: Path, private_key: rsa.RSAPrivateKey) -> Path:
    return write_pem(tmp_path / "key.pem", private_key)


@pytest.fixture
def mountpoint(tmp_path: Path) -> Path:
    where = tmp_path / "mount"
    where.mkdir()
    return where


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=PATIENCE
    )


@contextlib.asynccontextmanager
async def started(*arguments: str, pass_fds: tuple[int, ...] = ()) -> AsyncIterator["Started"]:
    process = await trio.lowlevel.open_process(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=pass_fds,
    )
    try:
        yield Started(process)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


class Started:
    """The command as a process."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.out = b""

    async def wait_ready(self, path: str) -> None:
        assert self.process.stdout is not None
        async for chunk in self.process.stdout:
            self.out += chunk
            if self.out.endswith(b"\n"):
                break
        assert self.out == f"ready: {path}\n".encode()

    async def end(self) -> tuple[int, str]:
        """The exit code, and what was logged; nothing else was on standard output."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        assert [chunk async for chunk in self.process.stdout] == []
        log = b"".join([chunk async for chunk in self.process.stderr])
        return await self.process.wait(), log.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@in_trio
async def test_a_signal_ends_it_with_quit_and_exit_code_0(
    mountpoint: Path, pem: Path, key: PemKey, number: signal.Signals
) -> None:
    async with (
        scripted(mountpoint) as device,
        started("--device", device.path, "--key", str(pem)) as command,
    ):
        await command.wait_ready(device.path)
        command.process.send_signal(number)
        code, log = await command.end()
        await device.released.wait()
        assert code == 0
        assert device.written == [HELO, QUIT]
        assert key.signature in log


@in_trio
async def test_it_answers_requests_and_logs_them_when_asked_to(
    mountpoint: Path, pem: Path, key: PemKey
) -> None:
    payload = build_file_key(FileKey(7, bytes(range(100, 116))))
    async with (
        serve(mountpoint) as device,
        started("--device", device.path, "--key", str(pem), "-v") as command,
    ):
        await command.wait_ready(device.path)
        answer = await device.request(build_request(Tag66(key.signature, payload)))
        encrypted = encrypted_key(answer)
        answer = await device.request(build_request(Tag64(key.signature, encrypted)))
        assert build_file_key(decrypted_key(answer)) == payload
        limits = Path(f"/proc/{command.process.pid}/limits").read_text()
        assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)
        command.process.terminate()
        code, log = await command.end()
    assert code == 0
    assert log.count("is answered") == 2
    assert payload.hex() not in log


@in_trio
async def test_a_device_that_goes_ends_it_with_exit_code_69(mountpoint: Path, pem: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with serve(mountpoint) as device:
            command = await stack.enter_async_context(
                started("--device", device.path, "--key", str(pem))
            )
            await command.wait_ready(device.path)
        code, log = await command.end()
    assert code == 69
    assert "is gone" in log
    assert "Traceback" not in log


@in_trio
async def test_a_second_one_ends_with_exit_code_69(mountpoint: Path, pem: Path) -> None:
    async with serve(mountpoint) as device:
        arguments = ("--device", device.path, "--key", str(pem))
        async with started(*arguments) as first:
            await first.wait_ready(device.path)
            async with started(*arguments) as second:
                code, log = await second.end()
            assert code == 69
            assert "has a daemon already" in log
            assert json.dumps(device.status()).count("euid") == 1


def test_signatures_are_shown_without_a_device(
    tmp_path: Path, pem: Path, key: PemKey, other_key: PemKey
) -> None:
    other = write_pem(tmp_path / "other.pem", other_key._private_key)
    done = run("--key", str(pem), "--key", str(other), "--show-signatures")
    signatures = f"{key.signature}\n{other_key.signature}\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, signatures, "")


def test_wrong_usage_ends_with_exit_code_2() -> None:
    done = run("--passphrase", "prompt")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--key" in done.stderr


def test_a_missing_key_ends_with_exit_code_78(tmp_path: Path) -> None:
    done = run("--key", str(tmp_path / "none.pem"))
    assert (done.returncode, done.stdout) == (78, "")
    assert "none.pem does not exist" in done.stderr


def test_a_missing_device_ends_with_exit_code_69(tmp_path: Path, pem: Path) -> None:
    done = run("--key", str(pem), "--device", str(tmp_path / "none"))
    assert (done.returncode, done.stdout) == (69, "")
    assert "modprobe ecryptfs" in done.stderr


def test_the_help_teaches_with_an_example() -> None:
    shown = CliRunner().invoke(main, ["--help"])
    assert shown.exit_code == 0
    assert "ecryptfs-keyd key generate key.pem" in shown.output


def test_a_process_can_be_made_uninspectable() -> None:
    program = (
        "import ctypes; from daemon_client.process import forbid_inspection; "
        "forbid_inspection(); print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"  # PR_GET_DUMPABLE
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "0\n"
