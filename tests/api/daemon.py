"""A daemon in another process, awaited: whoever serves the device must not block on it."""

from dataclasses import dataclass

import trio

from tests.client import Client
from tests.device.traffic import message_of, read_packet, respond


@dataclass(frozen=True)
class Daemon:
    """A process that has the device open."""

    client: Client
    descriptor: int

    async def read(self) -> bytes:
        """The next packet; goes on in its thread where it is cancelled."""
        return await trio.to_thread.run_sync(read_packet, self.client, self.descriptor)

    async def respond(self, packet: bytes, data: bytes) -> None:
        """Answer a packet, which must be accepted."""
        await trio.to_thread.run_sync(respond, self.client, self.descriptor, packet, data)

    async def reverse(self, times: int = 1) -> None:
        """Answer so many requests with their data reversed."""
        for _ in range(times):
            packet = await self.read()
            await self.respond(packet, message_of(packet).data[::-1])

    async def close(self) -> None:
        """Close the device."""
        await trio.to_thread.run_sync(self.client.call, "os.close", self.descriptor)
