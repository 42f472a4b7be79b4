"""Both sides of an exchange, call by call, each through a client's own process.

A *daemon* here is a client with the device open; a *requester* is one with control/request open.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ecryptfs_cuse.wire.packet import (
    Message,
    Packet,
    PacketType,
    build_message,
    build_packet,
    parse_message,
    parse_packet,
)
from tests.client import PATIENCE, Client, Pending
from tests.mounted import MountedDevice

PACKET_MAX = 8400
"""A count that no packet exceeds."""

HELO = build_packet(Packet(PacketType.HELO, 0))


@contextmanager
def refused(*numbers: int) -> Iterator[None]:
    """The call in the block fails with this errno, or one of these."""
    refusal: OSError | None = None
    try:
        yield
    except OSError as error:
        refusal = error
    assert refusal is not None, f"it was not refused with {os.strerror(numbers[0])!r}"
    assert refusal.errno in numbers, refusal


def open_device(client: Client, device: MountedDevice, flags: int = os.O_RDWR) -> int:
    """Register a daemon; the descriptor."""
    descriptor: int = client.call("os.open", device.path, flags)
    return descriptor


def ask(client: Client, device: MountedDevice, data: bytes, flags: int = 0) -> int:
    """Raise a request as the client's user; the descriptor to read the answer from."""
    descriptor: int = client.call("os.open", device.request_path, os.O_RDWR | flags)
    assert client.call("os.write", descriptor, data) == len(data)
    return descriptor


def message_of(packet: bytes) -> Message:
    """The message in a REQUEST that a daemon has read."""
    parsed = parse_packet(packet)
    assert parsed.type == PacketType.REQUEST
    assert parsed.body is not None
    return parse_message(parsed.body)


def response_to(packet: bytes, data: bytes) -> bytes:
    """The RESPONSE that answers a REQUEST."""
    message = Message(message_of(packet).index, data)
    counter = parse_packet(packet).counter
    return build_packet(Packet(PacketType.RESPONSE, counter, build_message(message)))


def read_packet(client: Client, descriptor: int) -> bytes:
    """The next packet, which must be there or on its way."""
    packet: bytes = client.call("os.read", descriptor, PACKET_MAX)
    return packet


def respond(client: Client, descriptor: int, packet: bytes, data: bytes) -> None:
    """Answer a REQUEST, which must be accepted."""
    response = response_to(packet, data)
    assert client.call("os.write", descriptor, response) == len(response)


def exchange(
    device: MountedDevice, requester: Client, daemon: Client, descriptor: int, data: bytes
) -> bytes:
    """One request, read and answered by its reverse; what the requester gets."""
    request = ask(requester, device, data)
    packet = read_packet(daemon, descriptor)
    respond(daemon, descriptor, packet, message_of(packet).data[::-1])
    answer: bytes = requester.call("os.read", request, PACKET_MAX)
    requester.call("os.close", request)
    return answer


def first_done(calls: list[Pending]) -> Pending:
    """Wait until one of the calls has returned; which one."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for call in calls:
            if call.is_done:
                return call
        os.sched_yield()
    raise AssertionError("none of the calls has returned")
