import os
import signal

import pytest

from tests.client import Client, Pending
from tests.conftest import ClientFactory
from tests.device.traffic import (
    PACKET_MAX,
    ask,
    exchange,
    message_of,
    open_device,
    respond,
)
from tests.mounted import MountedDevice

UNINTERRUPTIBLE = "it knows no interrupts: the kernel lets the reader wait for its answer"


def block(client: Client, device: MountedDevice, descriptor: int) -> Pending:
    """Let a thread of the client's block in read."""
    read = client.start("raw_read", descriptor, PACKET_MAX)
    device.wait_status("daemons", 0, "flags", equals=["IN_READ", "MISCDEV_OPEN"])
    read.wait_blocked()
    return read


@pytest.mark.channel_only(UNINTERRUPTIBLE)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_blocked_reader_dies_at_once_and_the_device_is_free(
    device: MountedDevice, clients: ClientFactory, number: signal.Signals
) -> None:
    client = clients()
    block(client, device, open_device(client, device))
    client.kill(number)
    assert client.wait() == -number
    open_device(clients(), device)


@pytest.mark.channel_only(UNINTERRUPTIBLE)
@pytest.mark.parametrize("restart", [False, True])
def test_a_signal_ends_a_blocked_read_with_0_octets_and_never_eintr(
    device: MountedDevice, clients: ClientFactory, restart: bool
) -> None:
    client = clients()
    client.call("handle_signal", signal.SIGUSR1, restart)
    descriptor = open_device(client, device)
    for _ in range(3):
        read = block(client, device, descriptor)
        client.call("signal_thread", read.thread, signal.SIGUSR1)
        assert read.result() == b""
    assert device.status()["daemons"][0]["flags"] == ["MISCDEV_OPEN"]
    assert exchange(device, client, client, descriptor, b"abc") == b"cba"


@pytest.mark.channel_only(UNINTERRUPTIBLE)
def test_stopping_and_continuing_a_reader_ends_its_read_with_0_octets(
    device: MountedDevice, clients: ClientFactory
) -> None:
    client = clients()
    read = block(client, device, open_device(client, device))
    client.kill(signal.SIGSTOP)
    os.waitid(os.P_PID, client.pid, os.WSTOPPED)
    client.kill(signal.SIGCONT)
    assert read.result() == b""


def test_a_signal_that_is_ignored_does_not_wake_a_reader(
    device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    read = block(daemon, device, descriptor)
    daemon.call("signal_thread", read.thread, signal.SIGWINCH)
    daemon.call("signal_thread", read.thread, signal.SIGCHLD)
    ask(requester, device, b"for the reader")
    packet = read.result()
    assert message_of(packet).data == b"for the reader"
    respond(daemon, descriptor, packet, b"")


@pytest.mark.channel_only(UNINTERRUPTIBLE)
def test_a_signal_ends_the_read_of_its_own_thread_only(
    device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    daemon.call("handle_signal", signal.SIGUSR1, True)
    descriptor = open_device(daemon, device)
    first = block(daemon, device, descriptor)
    assert daemon.call("raw_read", descriptor, PACKET_MAX) == b""
    second = block(daemon, device, descriptor)
    daemon.call("signal_thread", second.thread, signal.SIGUSR1)
    assert second.result() == b""
    ask(requester, device, b"for the first")
    packet = first.result()
    assert message_of(packet).data == b"for the first"
    respond(daemon, descriptor, packet, b"")


@pytest.mark.channel_only(UNINTERRUPTIBLE)
def test_a_message_that_meets_a_signal_is_not_lost(
    device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    daemon.call("handle_signal", signal.SIGUSR1, True)
    descriptor = open_device(daemon, device)
    for turn in range(100):
        read = daemon.start("raw_read", descriptor, PACKET_MAX)
        device.wait_status("daemons", 0, "flags", equals=["IN_READ", "MISCDEV_OPEN"])
        writing = requester.start("raise_request", device.request_path, b"%d" % turn)
        daemon.call("signal_thread", read.thread, signal.SIGUSR1)
        packet = read.result() or daemon.call("raw_read", descriptor, PACKET_MAX)
        assert message_of(packet).data == b"%d" % turn
        respond(daemon, descriptor, packet, b"%d" % turn)
        assert writing.result() == b"%d" % turn
