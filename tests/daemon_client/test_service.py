"""The command as a service: devices that come and go, keys that change, what systemd is told."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, PrivateFormat

from daemon_client.modules.openssl import PemKey
from daemon_client.sources.directory import KeyDirectory
from daemon_client.sources.reference import KeyReference
from ecryptfs_cuse.serve import Device, serve
from ecryptfs_cuse.wire.tags import Tag66, build_request
from tests.daemon_client.scripted import HELO, QUIT, scripted
from tests.daemon_client.serving import PAYLOAD, wrap
from tests.daemon_client.test_cli import Started, mountpoint, pem, started
from tests.daemon_client.test_openssl import write_pem
from tests.daemon_client.trio_test import in_trio

__all__ = ["mountpoint", "pem"]  # fixtures

NO_CAPABILITIES = ("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups")


@pytest.fixture
def encrypted_pem(tmp_path: Path, private_key: rsa.RSAPrivateKey) -> Path:
    return write_pem(
        tmp_path / "encrypted.pem",
        private_key,
        PrivateFormat.PKCS8,
        BestAvailableEncryption(b"pass word"),
    )


class Listener:
    """What sd_notify(3) sends it."""

    def __init__(self, connection: trio.socket.SocketType) -> None:
        self._connection = connection

    async def next(self) -> list[str]:
        """The assignments of the next message."""
        return (await self._connection.recv(4096)).decode().split("\n")

    async def wait_for(self, assignment: str) -> None:
        """Wait for a message that has it."""
        while assignment not in await self.next():
            pass


@pytest.fixture
def notify_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    return path


@contextlib.asynccontextmanager
async def listening(address: str | bytes) -> AsyncIterator[Listener]:
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
        await connection.bind(address)
        yield Listener(connection)


async def wait_log(command: Started, text: str) -> str:
    """Wait until it has logged ``text``; all that it has logged since the last time."""
    assert command.process.stderr is not None
    said = b""
    while text.encode() not in said:
        more = await command.process.stderr.receive_some()
        assert more, said.decode()
        said += more
    return said.decode()


async def is_served(device: Device, key: PemKey) -> bool:
    answer = await device.request(build_request(Tag66(key.signature, PAYLOAD)))
    return answer != b"\x43\xff"


@in_trio
async def test_it_waits_for_a_device_and_opens_it_again_when_it_has_gone(
    mountpoint: Path, pem: Path, key: PemKey
) -> None:
    path = str(mountpoint / "dev" / "ecryptfs")
    async with started("--device", path, "--key", str(pem), "--wait") as command:
        await wait_log(command, "it does not exist")
        for _ in range(2):
            async with serve(mountpoint) as device:
                await command.wait_ready(path)
                command.out = b""
                assert len(await wrap(device, key.signature)) == 256
            await wait_log(command, "waiting for the device")
        command.process.terminate()
        assert (await command.end())[0] == 0


@in_trio
async def test_waiting_it_says_so_once_and_a_signal_ends_it(mountpoint: Path, pem: Path) -> None:
    path = str(mountpoint / "none")
    async with started("--device", path, "--key", str(pem), "--wait") as command:
        said = await wait_log(command, "waiting for the device")
        # Time enough for more tries: the pauses are short in the beginning.
        with trio.move_on_after(1):
            said += await wait_log(command, "what it does not say")
        command.process.send_signal(signal.SIGINT)
        code, log = await command.end()
    assert code == 0
    assert (said + log).count("it does not exist") == 1


@in_trio
async def test_systemd_is_told_when_it_is_ready_reloads_and_stops(
    mountpoint: Path, pem: Path, notify_socket: str
) -> None:
    async with (
        listening(notify_socket) as listener,
        scripted(mountpoint) as device,
        started("--device", device.path, "--key", str(pem), "--no-keyring") as command,
    ):
        assert await listener.next() == ["READY=1", "STATUS=1 key"]
        assert device.written == [HELO]
        command.process.send_signal(signal.SIGHUP)
        reloading = await listener.next()
        assert reloading[0] == "RELOADING=1"
        assert reloading[1].startswith("MONOTONIC_USEC=")
        assert await listener.next() == ["READY=1", "STATUS=1 key"]
        command.process.terminate()
        assert await listener.next() == ["STOPPING=1"]
        assert await command.process.wait() == 0
        await device.released.wait()
        assert device.written == [HELO, QUIT]


@in_trio
async def test_systemd_is_told_at_an_abstract_address_that_it_is_ready_and_waits(
    mountpoint: Path, pem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"ecryptfs-keyd-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    path = str(mountpoint / "none")
    async with (
        listening(b"\0" + name.encode()) as listener,
        started("--device", path, "--key", str(pem), "--wait") as command,
    ):
        assert await listener.next() == ["READY=1", f"STATUS=waiting for {path}"]
        command.process.send_signal(signal.SIGHUP)
        assert (await listener.next())[0] == "RELOADING=1"
        assert await listener.next() == ["READY=1", f"STATUS=waiting for {path}"]


@in_trio
async def test_sighup_makes_it_see_what_was_added_to_the_directory_and_removed(
    mountpoint: Path, pem: Path, config_directory: Path, key: PemKey, notify_socket: str
) -> None:
    keys = KeyDirectory(config_directory / "keys")
    async with (
        listening(notify_socket) as listener,
        serve(mountpoint) as device,
        started("--device", device.path, "--no-keyring") as command,
    ):
        await listener.wait_for("READY=1")
        assert not await is_served(device, key)
        keys.add(key.signature, KeyReference("openssl", str(pem)))
        assert not await is_served(device, key)
        command.process.send_signal(signal.SIGHUP)
        await listener.wait_for("READY=1")
        assert await is_served(device, key)
        keys.remove(key.signature)
        command.process.send_signal(signal.SIGHUP)
        await listener.wait_for("READY=1")
        assert not await is_served(device, key)


@in_trio
async def test_a_reload_of_something_wrong_keeps_the_old_keys_and_says_why(
    mountpoint: Path, pem: Path, config_directory: Path, key: PemKey, notify_socket: str
) -> None:
    config_directory.mkdir(parents=True)
    config = config_directory / "config.toml"
    config.write_text(f'[[key]]\nlocation = "{pem}"\n')
    async with (
        listening(notify_socket) as listener,
        serve(mountpoint) as device,
        started("--device", device.path) as command,
    ):
        await listener.wait_for("READY=1")
        for wrong, why in (
            ('[[key]]\nlocation = "none.pem"\n', "none.pem does not exist"),
            ("[[key]\n", "config.toml"),
        ):
            config.write_text(wrong)
            command.process.send_signal(signal.SIGHUP)
            assert "the old keys stay" in await wait_log(command, why)
            await listener.wait_for("READY=1")
            assert await is_served(device, key)


@in_trio
async def test_a_passphrase_that_came_from_a_pipe_survives_a_reload(
    mountpoint: Path, tmp_path: Path, key: PemKey, notify_socket: str, encrypted_pem: Path
) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"pass word\n")
    os.close(writer)
    async with (
        listening(notify_socket) as listener,
        serve(mountpoint) as device,
        started(
            *("--device", device.path, "--key", str(encrypted_pem)),
            *("--passphrase", f"fd:{reader}"),
            pass_fds=(reader,),
        ) as command,
    ):
        os.close(reader)
        await listener.wait_for("READY=1")
        command.process.send_signal(signal.SIGHUP)
        await listener.wait_for("READY=1")
        assert await is_served(device, key)


@in_trio
async def test_a_reload_that_does_not_end_keeps_no_signal_from_stopping_it(
    mountpoint: Path, tmp_path: Path, encrypted_pem: Path, notify_socket: str
) -> None:
    askpass = tmp_path / "askpass"
    askpass.write_text("#!/bin/sh\necho pass word\n")
    askpass.chmod(0o700)
    async with (
        listening(notify_socket) as listener,
        serve(mountpoint) as device,
        started(
            *("--device", device.path, "--key", str(encrypted_pem)),
            *("--passphrase", f"askpass:{askpass}"),
        ) as command,
    ):
        await listener.wait_for("READY=1")
        askpass.write_text("#!/bin/sh\nexec sleep 20\n")
        command.process.send_signal(signal.SIGHUP)
        await listener.wait_for("RELOADING=1")
        command.process.terminate()
        assert await command.process.wait() == 0


@in_trio
async def test_in_the_journal_lines_have_priorities(
    mountpoint: Path, pem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    async with (
        serve(mountpoint) as device,
        started("--device", device.path, "--key", str(pem)) as command,
    ):
        await command.wait_ready(device.path)
        command.process.terminate()
        _, log = await command.end()
    assert all(line.startswith("<6>") for line in log.splitlines()), log
    assert "<6>stopping: SIGTERM" in log.splitlines()


_LOCK_MEMORY = """
from daemon_client.process import lock_memory
print(lock_memory())
for line in open("/proc/self/status"):
    if line.startswith("VmLck:"):
        print(int(line.split()[1]) > 0)
"""


UNLIMITED = ("prlimit", "--memlock=65536:unlimited")


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (["prlimit", "--memlock=65536:65536"], "True\nTrue\n"),
        ([*UNLIMITED, *NO_CAPABILITIES], "True\nTrue\n"),
        (["prlimit", "--memlock=65536:65536", *NO_CAPABILITIES], "False\nFalse\n"),
    ],
    ids=["with the capability", "without a limit", "under a limit"],
)
def test_memory_is_locked_unless_a_limit_would_make_a_later_allocation_fail(
    limits: list[str], said: str
) -> None:
    if limits[:2] == [*UNLIMITED] and subprocess.run([*UNLIMITED, "true"]).returncode != 0:
        pytest.skip("this machine lets nobody raise the limit on locked memory")
    command = [*limits, sys.executable, "-c", _LOCK_MEMORY]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == said
