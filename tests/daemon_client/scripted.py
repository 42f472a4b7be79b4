"""A mounted device that does what a test tells it: what the real ones rarely do."""

import contextlib
import os
import select
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

import trio

from ecryptfs_cuse.fuse.caller import Caller
from ecryptfs_cuse.fuse.node import Directory, File, Handle
from ecryptfs_cuse.fuse.session import hosted

HELO = bytes.fromhex("6400000000")
QUIT = bytes.fromhex("6500000000")


class ScriptedDevice(File):
    """packets: what the next reads return, an error number to fail with. written: what came."""

    def __init__(self, path: str) -> None:
        super().__init__(0o600)
        self.path = path
        self.packets: deque[bytes | int] = deque()
        self.written: list[bytes] = []
        self.open_fails_with: int | None = None
        self.write_fails_with: dict[bytes, int] = {}
        self.gives_nothing = False
        self.released = trio.Event()
        self.handle: ScriptedHandle | None = None
        self._came = trio.Event()

    def open(self, caller: Caller, flags: int) -> Handle:
        if self.open_fails_with is not None:
            raise OSError(self.open_fails_with, os.strerror(self.open_fails_with))
        self.handle = ScriptedHandle(self)
        return self.handle

    def say(self, *packets: bytes | int) -> None:
        """Have the daemon read ``packets``."""
        self.packets.extend(packets)
        if self.handle is not None:
            self.handle.wake()

    def take(self, data: bytes) -> int:
        """A write."""
        self.written.append(data)
        self._came.set()
        self._came = trio.Event()
        if data in self.write_fails_with:
            number = self.write_fails_with[data]
            raise OSError(number, os.strerror(number))
        return len(data)

    async def wait_written(self, packet: bytes) -> None:
        """Wait until the daemon has written ``packet``."""
        while packet not in self.written:
            await self._came.wait()


class ScriptedHandle(Handle):
    """The script, opened."""

    def __init__(self, device: ScriptedDevice) -> None:
        self._device = device

    def read(self, size: int, offset: int) -> bytes | None:
        assert self._device.gives_nothing or self._device.packets, "it read without a poll"
        packet = self._device.packets.popleft() if self._device.packets else b""
        if isinstance(packet, int):
            raise OSError(packet, os.strerror(packet))
        return packet

    def write(self, data: bytes, offset: int) -> int:
        return self._device.take(data)

    def poll(self) -> tuple[int, bool]:
        is_ready = self._device.gives_nothing or self._device.packets
        return select.POLLIN | select.POLLRDNORM if is_ready else 0, True

    def release(self) -> None:
        self._device.released.set()


@contextlib.asynccontextmanager
async def scripted(mountpoint: Path) -> AsyncIterator[ScriptedDevice]:
    """Mount a scripted device."""
    mountpoint.mkdir(exist_ok=True)
    device = ScriptedDevice(str(mountpoint / "ecryptfs"))
    async with hosted(Directory({"ecryptfs": device}), str(mountpoint)):
        yield device
