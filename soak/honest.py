"""Two who do nothing but what is right: a daemon and a requester, whose answers must not fail."""

import os
import random
import select
import time
from collections.abc import Callable

from ecryptfs_cuse.wire.packet import (
    Message,
    Packet,
    PacketType,
    build_message,
    build_packet,
    parse_message,
    parse_packet,
)
from soak.ledger import Count, Ledger
from tests.device.traffic import HELO, PACKET_MAX

_PAUSE_SECONDS = 0.002  # they are to notice what others do, not to keep others from it
_POLL_MS = 50


def response(counter: int, index: int, data: bytes) -> bytes:
    """The packet that answers a request."""
    return build_packet(Packet(PacketType.RESPONSE, counter, build_message(Message(index, data))))


def honest_daemon(path: str, goes_on: Callable[[], bool], rng: random.Random, book: Ledger) -> None:
    """Answer each request with its reverse, at once."""
    device = os.open(path, os.O_RDWR)
    book.add(Count.DAEMONS)
    os.write(device, HELO)
    poller = select.poll()
    poller.register(device, select.POLLIN)
    while goes_on():
        if not poller.poll(_POLL_MS):
            continue
        packet = parse_packet(os.read(device, PACKET_MAX))
        if packet.body is None:
            raise AssertionError("a message was lost before it was read")
        message = parse_message(packet.body)
        os.write(device, response(packet.counter, message.index, message.data[::-1]))
        book.add(Count.READ)
        book.add(Count.RESPONDED)
    os.close(device)


def honest_requester(
    path: str, goes_on: Callable[[], bool], rng: random.Random, book: Ledger
) -> None:
    """Ask and ask; each answer must be right."""
    request = os.open(path, os.O_RDWR)
    while goes_on():
        data = rng.randbytes(rng.randrange(1, 300))
        started = time.monotonic_ns()
        book[Count.SINCE_NS] = started
        book.add(Count.BEGUN)
        os.write(request, data)
        answer = os.read(request, PACKET_MAX)
        book.add(Count.ANSWERED)
        book[Count.WORST_NS] = max(book[Count.WORST_NS], time.monotonic_ns() - started)
        book[Count.SINCE_NS] = 0
        if answer != data[::-1]:
            raise AssertionError(f"a wrong answer of {len(answer)} bytes to {len(data)}")
        time.sleep(_PAUSE_SECONDS)
    os.close(request)
