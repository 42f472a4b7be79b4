import errno
import os

import pytest

from ecryptfs_cuse.wire.packet import Message, Packet, PacketType, build_message, build_packet
from tests.conftest import ClientFactory
from tests.device.traffic import (
    PACKET_MAX,
    ask,
    exchange,
    message_of,
    open_device,
    read_packet,
    refused,
    respond,
    response_to,
)
from tests.mounted import MountedDevice

QUIT = build_packet(Packet(PacketType.QUIT, 0))


def test_helo_and_quit_are_taken_and_have_no_effect(
    device: MountedDevice, clients: ClientFactory
) -> None:
    client = clients()
    descriptor = open_device(client, device)
    for kind in (PacketType.HELO, PacketType.QUIT, PacketType.HELO):
        for body in (None, b"", b"anything"):
            packet = build_packet(Packet(kind, 0, body))
            assert client.call("os.write", descriptor, packet) == len(packet)
    assert device.status()["daemons"][0]["flags"] == ["MISCDEV_OPEN"]
    assert exchange(device, client, client, descriptor, b"still there") == b"ereht llits"


def test_no_octets_are_written_without_complaint(
    device: MountedDevice, clients: ClientFactory
) -> None:
    client = clients()
    descriptor = open_device(client, device)
    assert client.call("os.write", descriptor, b"") == 0


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(bytes((100,)), id="one octet"),
        pytest.param(bytes((100, 0, 0, 0)), id="four octets"),
        pytest.param(bytes((102, 0, 0, 0, 1)), id="a REQUEST"),
        pytest.param(bytes((103, 0, 0, 0, 1)), id="a RESPONSE without a message"),
        pytest.param(bytes((100, 0, 0, 0, 0, 2, 0)), id="a length beyond the end"),
        pytest.param(bytes((100, 0, 0, 0, 0, 1, 0, 0)), id="octets behind the end"),
        pytest.param(bytes((100, 0, 0, 0, 0, 224, 0)), id="a length of 224"),
        pytest.param(bytes((100, 0, 0, 0, 0, 255, 0)), id="a length of 255"),
        pytest.param(bytes((100, 0, 0, 0, 0, 193, 77)) + bytes(525), id="532 octets"),
        pytest.param(bytes(100_000), id="100000 octets"),
    ],
)
def test_what_is_no_packet_is_refused_and_changes_nothing(
    device: MountedDevice, clients: ClientFactory, octets: bytes
) -> None:
    client = clients()
    descriptor = open_device(client, device)
    with refused(errno.EINVAL):
        client.call("os.write", descriptor, octets)
    assert exchange(device, client, client, descriptor, b"abc") == b"cba"


def test_a_response_of_531_octets_is_the_longest(
    device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    request = ask(requester, device, b"how much?")
    packet = read_packet(daemon, descriptor)
    longest = 531 - 5 - 2 - 8
    with refused(errno.EINVAL):
        respond(daemon, descriptor, packet, bytes(longest + 1))
    respond(daemon, descriptor, packet, bytes(longest))
    assert requester.call("os.read", request, PACKET_MAX) == bytes(longest)


def test_a_response_needs_index_and_counter_of_a_request_that_waits(
    device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    request = ask(requester, device, b"who?")
    packet = read_packet(daemon, descriptor)
    right = response_to(packet, b"me")
    index = message_of(packet).index
    counter = int.from_bytes(packet[1:5], "big")
    for wrong_counter, wrong_index in (
        (counter + 1, index),
        (counter - 1, index),
        (counter, index + 1),
        (counter, 32),
        (counter, 0xFFFFFFFF),
    ):
        body = build_message(Message(wrong_index, b"me"))
        with refused(errno.EINVAL):
            wrong = build_packet(Packet(PacketType.RESPONSE, wrong_counter, body))
            daemon.call("os.write", descriptor, wrong)
    assert daemon.call("os.write", descriptor, right) == len(right)
    with refused(errno.EINVAL):
        daemon.call("os.write", descriptor, right)
    assert requester.call("os.read", request, PACKET_MAX) == b"me"


def test_an_answer_may_come_before_its_request_is_read(
    device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    request = ask(requester, device, b"guess")
    (context,) = device.status()["contexts"]["in_use"]
    body = build_message(Message(context["index"], b"guessed"))
    response = build_packet(Packet(PacketType.RESPONSE, context["counter"], body))
    assert daemon.call("os.write", descriptor, response) == len(response)
    assert requester.call("os.read", request, PACKET_MAX) == b"guessed"
    # What is left in the queue is a packet without a message.
    left = daemon.call("raw_read", descriptor, 5)
    assert left == bytes((102,)) + context["counter"].to_bytes(4, "big")


def test_a_descriptor_open_for_one_direction_refuses_the_other(
    device: MountedDevice, clients: ClientFactory
) -> None:
    client = clients()
    reader = open_device(client, device, os.O_RDONLY)
    with refused(errno.EBADF):
        client.call("os.write", reader, QUIT)
    client.call("os.close", reader)
    writer = open_device(client, device, os.O_WRONLY)
    with refused(errno.EBADF):
        client.call("raw_read", writer, 100)
    assert client.call("os.write", writer, QUIT) == len(QUIT)
