import errno
import os
import select
import signal

import pytest

from ecryptfs_cuse.wire.packet import MESSAGE_DATA_MAX
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
)
from tests.mounted import MountedDevice

IDLE = select.POLLOUT | select.POLLWRNORM
ANSWERED = select.POLLIN | select.POLLRDNORM


@pytest.mark.parametrize("uid", [0, 1000])
def test_a_request_is_answered_by_the_daemon_of_its_user(
    device: MountedDevice, clients: ClientFactory, uid: int
) -> None:
    daemons = {owner: clients(owner) for owner in (0, 1000, 1001)}
    descriptors = {owner: open_device(daemon, device) for owner, daemon in daemons.items()}
    for size in (1, 183, 184, 500):
        data = bytes(range(256))[:size] * 2
        answer = exchange(device, clients(uid), daemons[uid], descriptors[uid], data[:500])
        assert answer == data[:500][::-1]
    for owner, daemon in daemons.items():
        assert daemon.call("poll", descriptors[owner], 0xFFFF, 0) == 0


def test_the_longest_request_reaches_the_daemon_and_a_longer_one_is_refused(
    device: MountedDevice, clients: ClientFactory
) -> None:
    client = clients()
    descriptor = open_device(client, device)
    longest = os.urandom(MESSAGE_DATA_MAX)
    request = client.call("os.open", device.request_path, os.O_RDWR)
    with refused(errno.EMSGSIZE):
        client.call("os.write", request, longest + b"x")
    assert client.call("os.write", request, longest) == len(longest)
    packet = read_packet(client, descriptor)
    assert message_of(packet).data == longest
    respond(client, descriptor, packet, b"")


def test_without_a_daemon_of_the_user_a_request_is_refused(
    device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients(1000)
    open_device(daemon, device)
    request = requester.call("os.open", device.request_path, os.O_RDWR)
    with refused(errno.ENOTCONN):
        requester.call("os.write", request, b"anybody?")
    # The file is idle again, and the request can be made once there is a daemon.
    descriptor = open_device(requester, device)
    assert requester.call("os.write", request, b"now?") == 4
    respond(requester, descriptor, read_packet(requester, descriptor), b"yes")
    assert requester.call("os.read", request, PACKET_MAX) == b"yes"


def test_the_effective_uid_at_open_says_who_asks(
    device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(1000), clients()
    descriptor = open_device(daemon, device)
    requester.call("set_effective_uid", 1000)
    request = requester.call("os.open", device.request_path, os.O_RDWR)
    requester.call("set_effective_uid", 0)
    assert requester.call("os.write", request, b"as 1000") == 7
    packet = read_packet(daemon, descriptor)
    assert message_of(packet).data == b"as 1000"
    respond(daemon, descriptor, packet, b"")


def test_a_user_namespace_keeps_requests_apart(
    device: MountedDevice, clients: ClientFactory
) -> None:
    outside, inside = clients(1000), clients(1000, "unshare", "-U")
    open_device(outside, device)
    request = inside.call("os.open", device.request_path, os.O_RDWR)
    with refused(errno.ENOTCONN):
        inside.call("os.write", request, b"anybody in here?")


def test_a_second_request_is_refused_until_the_answer_is_read_to_its_end(
    device: MountedDevice, clients: ClientFactory
) -> None:
    client = clients()
    descriptor = open_device(client, device)
    request = ask(client, device, b"first")
    with refused(errno.EBUSY):
        client.call("os.write", request, b"second")
    respond(client, descriptor, read_packet(client, descriptor), b"an answer")
    for piece in (b"an ", b"ans", b"wer"):
        with refused(errno.EBUSY):
            client.call("os.write", request, b"second")
        assert client.call("raw_read", request, 3) == piece
    assert client.call("raw_read", request, 3) == b""
    assert client.call("os.write", request, b"second") == 6
    respond(client, descriptor, read_packet(client, descriptor), b"")
    assert client.call("raw_read", request, 3) == b""


def test_a_read_without_a_request_finds_no_octets(
    device: MountedDevice, clients: ClientFactory
) -> None:
    client = clients()
    request = client.call("os.open", device.request_path, os.O_RDWR)
    assert client.call("raw_read", request, PACKET_MAX) == b""


def test_a_read_that_may_not_block_says_so(device: MountedDevice, clients: ClientFactory) -> None:
    client = clients()
    descriptor = open_device(client, device)
    request = ask(client, device, b"quick", os.O_NONBLOCK)
    with refused(errno.EAGAIN):
        client.call("raw_read", request, PACKET_MAX)
    respond(client, descriptor, read_packet(client, descriptor), b"quick enough")
    assert client.call("raw_read", request, PACKET_MAX) == b"quick enough"


def test_poll_tells_idle_from_waiting_from_answered(
    device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    request = requester.call("os.open", device.request_path, os.O_RDWR)
    for _ in range(3):
        assert requester.call("poll", request, 0xFFFF, 0) == IDLE
        requester.call("os.write", request, b"request")
        assert requester.call("poll", request, 0xFFFF, 0) == 0
        poll = requester.start("poll", request, 0xFFFF, 20.0)
        poll.wait_blocked()
        respond(daemon, descriptor, read_packet(daemon, descriptor), b"answer")
        assert poll.result() == ANSWERED
        assert requester.call("raw_read", request, PACKET_MAX) == b"answer"


@pytest.mark.channel_only("it knows no interrupts: the requester would wait for its answer")
def test_a_signal_interrupts_the_wait_and_keeps_the_request(
    device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    requester.call("handle_signal", signal.SIGUSR1, False)
    request = ask(requester, device, b"patience")
    for _ in range(3):
        read = requester.start("raw_read", request, PACKET_MAX)
        read.wait_blocked()
        requester.call("signal_thread", read.thread, signal.SIGUSR1)
        with refused(errno.EINTR):
            read.result()
    respond(daemon, descriptor, read_packet(daemon, descriptor), b"rewarded")
    assert requester.call("raw_read", request, PACKET_MAX) == b"rewarded"


@pytest.mark.channel_only("it knows no interrupts: the requester would not die")
def test_a_requester_killed_while_it_waits_is_gone_at_once(
    device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    request = ask(requester, device, b"last words")
    requester.start("raw_read", request, PACKET_MAX).wait_blocked()
    requester.kill()
    assert requester.wait() == -signal.SIGKILL
    assert device.status()["contexts"]["free"] == 31
    packet = read_packet(daemon, descriptor)
    assert message_of(packet).data == b"last words"
    respond(daemon, descriptor, packet, b"too late")
    assert device.status()["contexts"]["free"] == 32
    with refused(errno.EINVAL):
        respond(daemon, descriptor, packet, b"again")


def test_requests_of_many_files_wait_in_one_process(
    device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    threads = [
        requester.start("raise_request", device.request_path, b"%d" % number)
        for number in range(32)
    ]
    packets = [read_packet(daemon, descriptor) for _ in threads]
    for packet in reversed(packets):
        respond(daemon, descriptor, packet, b"answer to " + message_of(packet).data)
    answers = [thread.result() for thread in threads]
    assert answers == [b"answer to %d" % number for number in range(32)]
