"""A device and a daemon in one thread, requests to them, and a key that takes its time."""

import contextlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import trio

from daemon_client import Daemon, Key
from daemon_client.daemon import AT_ONCE, DEADLINE
from daemon_client.modules.openssl import PemKey
from ecryptfs_cuse.core.keystore import decrypted_key, encrypted_key
from ecryptfs_cuse.serve import Device, Transport, serve
from ecryptfs_cuse.wire.tags import FileKey, Tag64, Tag66, build_file_key, build_request

UNKNOWN = "0123456789abcdef"
PAYLOAD = build_file_key(FileKey(7, bytes(range(16))))


@contextlib.asynccontextmanager
async def served(
    mountpoint: Path, transport: Transport = Transport.CHANNEL
) -> AsyncIterator[Device]:
    mountpoint.mkdir(exist_ok=True)
    async with serve(mountpoint, transport=transport) as device:
        yield device


@contextlib.asynccontextmanager
async def running(
    device: Device, *keys: Key, at_once: int = AT_ONCE, deadline: float = DEADLINE
) -> AsyncIterator[None]:
    async with (
        Daemon(device.path, keys, at_once=at_once, deadline=deadline) as daemon,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(daemon.run)
        yield
        nursery.cancel_scope.cancel()


async def wrap(device: Device, signature: str, payload: bytes = PAYLOAD) -> bytes:
    return encrypted_key(await device.request(build_request(Tag66(signature, payload))))


async def unwrap(device: Device, signature: str, encrypted: bytes) -> bytes:
    answer = await device.request(build_request(Tag64(signature, encrypted)))
    return build_file_key(decrypted_key(answer))


class SlowKey(PemKey):
    """A key in a store of its own that waits, in its thread, until it may go on."""

    def __init__(self, key: PemKey, signature: str = UNKNOWN) -> None:
        super().__init__(key._private_key, "slow")
        self.signature = signature
        self.store = "slow"
        self.calls = 0
        self.started = threading.Event()
        self.may_go_on = threading.Event()

    def encrypt(self, payload: bytes) -> bytes:
        self.calls += 1
        self.started.set()
        self.may_go_on.wait()
        return super().encrypt(payload)

    async def wait_started(self) -> None:
        """Wait until it is asked to encrypt."""
        assert await trio.to_thread.run_sync(self.started.wait, 5)
