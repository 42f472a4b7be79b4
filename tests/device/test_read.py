import errno
import os
from struct import pack

import pytest

from tests.conftest import ClientFactory
from tests.device.traffic import (
    PACKET_MAX,
    ask,
    exchange,
    first_done,
    message_of,
    open_device,
    read_packet,
    refused,
    respond,
)
from tests.mounted import MountedDevice

LOCKED = "reads of one open file wait for its position's lock, which only FOPEN_STREAM takes away"


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_RDONLY, os.O_RDWR | os.O_NONBLOCK])
def test_a_read_waits_for_a_message_whether_or_not_it_may_block(
    device: MountedDevice, clients: ClientFactory, flags: int
) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device, flags)
    read = daemon.start("raw_read", descriptor, PACKET_MAX)
    device.wait_status("daemons", 0, "flags", equals=["IN_READ", "MISCDEV_OPEN"])
    read.wait_blocked()
    request = ask(requester, device, b"wake up")
    packet = read.result()
    assert message_of(packet).data == b"wake up"
    daemon.call("os.close", descriptor)
    respond(daemon, open_device(daemon, device), packet, b"up")
    assert requester.call("os.read", request, PACKET_MAX) == b"up"


def test_the_packet_is_the_kernels_octet_for_octet(
    device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    counter = device.status()["counter"] + 1
    first, second = ask(requester, device, b"abc"), ask(requester, device, bytes(200))
    in_use = device.status()["contexts"]["in_use"]
    indexes = {context["counter"]: context["index"] for context in in_use}
    small, large = (read_packet(daemon, descriptor) for _ in range(2))
    head = bytes((102, *counter.to_bytes(4, "big"), 11))
    assert small == head + pack("=II", indexes[counter], 3) + b"abc"
    # 208 octets: the length takes two, as RFC 2440 has it.
    head = bytes((102, *(counter + 1).to_bytes(4, "big"), 192, 208 - 192))
    assert large == head + pack("=II", indexes[counter + 1], 200) + bytes(200)
    for request, packet in ((first, small), (second, large)):
        respond(daemon, descriptor, packet, b"ok")
        requester.call("os.close", request)


def test_messages_come_in_the_order_of_the_requests(
    device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    sent = [f"request {number}".encode() for number in range(10)]
    for data in sent:
        ask(requester, device, data)
    packets = [read_packet(daemon, descriptor) for _ in sent]
    assert [message_of(packet).data for packet in packets] == sent
    for packet in packets:
        respond(daemon, descriptor, packet, b"")


def test_too_small_a_buffer_gets_0_octets_and_the_message_stays(
    device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    request = ask(requester, device, b"kept")
    size = 5 + 1 + 8 + len(b"kept")
    for count in (1, 4, 5, size - 1):
        assert daemon.call("raw_read", descriptor, count) == b""
    packet = daemon.call("raw_read", descriptor, size)
    assert message_of(packet).data == b"kept"
    respond(daemon, descriptor, packet, b"")
    assert requester.call("os.read", request, PACKET_MAX) == b""


def test_a_blocked_reader_with_too_small_a_buffer_gets_0_octets_too(
    device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    read = daemon.start("raw_read", descriptor, 10)
    device.wait_status("daemons", 0, "flags", equals=["IN_READ", "MISCDEV_OPEN"])
    ask(requester, device, b"kept")
    assert read.result() == b""
    packet = read_packet(daemon, descriptor)
    respond(daemon, descriptor, packet, b"")


@pytest.mark.channel_only(LOCKED)
def test_every_second_reader_of_an_open_file_gets_0_octets_at_once(
    device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    blocked = []
    for _ in range(2):
        read = daemon.start("raw_read", descriptor, PACKET_MAX)
        device.wait_status("daemons", 0, "flags", equals=["IN_READ", "MISCDEV_OPEN"])
        read.wait_blocked()
        blocked.append(read)
        assert daemon.call("raw_read", descriptor, PACKET_MAX) == b""
    assert not any(read.is_done for read in blocked)
    requests = [ask(requester, device, data) for data in (b"one", b"two")]
    packets = [read.result() for read in blocked]
    assert sorted(message_of(packet).data for packet in packets) == [b"one", b"two"]
    for packet in packets:
        respond(daemon, descriptor, packet, message_of(packet).data)
    answers = [requester.call("os.read", request, PACKET_MAX) for request in requests]
    assert answers == [b"one", b"two"]


@pytest.mark.channel_only(LOCKED)
def test_one_of_several_blocked_readers_gets_the_message_and_the_others_go_on_blocking(
    device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    reads = []
    for _ in range(3):
        read = daemon.start("raw_read", descriptor, PACKET_MAX)
        device.wait_status("daemons", 0, "flags", equals=["IN_READ", "MISCDEV_OPEN"])
        reads.append(read)
        # Refused, which lets the next one in.
        assert daemon.call("raw_read", descriptor, PACKET_MAX) == b""
    while reads:
        request = ask(requester, device, b"for one")
        done = first_done(reads)
        reads.remove(done)
        assert message_of(done.result()).data == b"for one"
        respond(daemon, descriptor, done.result(), b"")
        requester.call("os.close", request)


@pytest.mark.channel_only(LOCKED)
@pytest.mark.parametrize("what", ["HELO", "RESPONSE"])
def test_a_write_returns_at_once_while_another_thread_reads(
    device: MountedDevice, clients: ClientFactory, what: str
) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    request = ask(requester, device, b"first")
    packet = read_packet(daemon, descriptor)
    read = daemon.start("raw_read", descriptor, PACKET_MAX)
    device.wait_status("daemons", 0, "flags", equals=["IN_READ", "MISCDEV_OPEN"])
    if what == "HELO":
        assert daemon.call("os.write", descriptor, bytes((100, 0, 0, 0, 0))) == 5
    respond(daemon, descriptor, packet, b"answer")
    assert requester.call("os.read", request, PACKET_MAX) == b"answer"
    assert not read.is_done
    second = ask(requester, device, b"second")
    respond(daemon, descriptor, read.result(), b"")
    assert requester.call("os.read", second, PACKET_MAX) == b""


def test_a_descriptor_closed_during_a_read_keeps_the_daemon_until_the_read_returns(
    device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    read = daemon.start("raw_read", descriptor, PACKET_MAX)
    device.wait_status("daemons", 0, "flags", equals=["IN_READ", "MISCDEV_OPEN"])
    daemon.call("os.close", descriptor)
    with refused(errno.EINVAL):
        open_device(requester, device)
    request = ask(requester, device, b"last")
    packet = read.result()
    assert message_of(packet).data == b"last"
    device.wait_status("daemons", equals=[])
    descriptor = open_device(daemon, device)
    respond(daemon, descriptor, packet, b"done")
    assert requester.call("os.read", request, PACKET_MAX) == b"done"


def test_a_daemon_reads_and_answers_in_turns(device: MountedDevice, clients: ClientFactory) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    for turn in range(300):
        data = turn.to_bytes(2, "big") * (1 + turn % 100)
        assert exchange(device, requester, daemon, descriptor, data) == data[::-1]
