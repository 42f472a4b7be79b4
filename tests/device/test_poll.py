import select
import time

import pytest

from tests.client import Client
from tests.conftest import ClientFactory
from tests.device.traffic import (
    PACKET_MAX,
    ask,
    exchange,
    message_of,
    open_device,
    read_packet,
    respond,
)
from tests.mounted import MountedDevice

READABLE = select.POLLIN | select.POLLRDNORM
EVERYTHING = 0xFFFF
SHORT = 0.1
"""Seconds in which nothing is to happen."""

LONG = 20.0
"""Seconds that no poll should take."""


def answer(daemon: Client, descriptor: int) -> None:
    """Read one request and answer it."""
    respond(daemon, descriptor, read_packet(daemon, descriptor), b"")


def test_an_empty_device_is_ready_for_nothing(
    device: MountedDevice, clients: ClientFactory
) -> None:
    client = clients()
    descriptor = open_device(client, device)
    assert client.call("poll", descriptor, EVERYTHING, SHORT) == 0
    assert client.call("select_ready", descriptor, SHORT) == ""
    for edge in (0, select.EPOLLET):
        epoll = client.call("epoll_open", descriptor, READABLE | select.POLLOUT | edge)
        assert client.call("epoll_wait", epoll, SHORT) == 0


def test_a_queued_message_makes_it_readable_and_never_writable(
    device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    ask(requester, device, b"a message")
    assert daemon.call("poll", descriptor, EVERYTHING, 0) == 0x41
    assert daemon.call("poll", descriptor, select.POLLIN, 0) == select.POLLIN
    assert daemon.call("poll", descriptor, select.POLLOUT, 0) == 0
    assert daemon.call("select_ready", descriptor, 0) == "r"
    answer(daemon, descriptor)
    assert daemon.call("poll", descriptor, EVERYTHING, 0) == 0


def test_it_stays_readable_until_the_last_message_is_read(
    device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    for data in (b"one", b"two"):
        ask(requester, device, data)
    for _ in range(2):
        assert daemon.call("poll", descriptor, EVERYTHING, 0) == READABLE
        answer(daemon, descriptor)
    assert daemon.call("poll", descriptor, EVERYTHING, 0) == 0


@pytest.mark.parametrize("by", ["poll", "select_ready"])
def test_a_message_wakes_who_waits(device: MountedDevice, clients: ClientFactory, by: str) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    for _ in range(20):
        events = (select.POLLIN,) if by == "poll" else ()
        waiting = daemon.start(by, descriptor, *events, LONG)
        waiting.wait_blocked()
        ask(requester, device, b"wake up")
        assert waiting.result() == (select.POLLIN if by == "poll" else "r")
        answer(daemon, descriptor)


def test_every_waiting_thread_is_woken(device: MountedDevice, clients: ClientFactory) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    waiting = [daemon.start("poll", descriptor, EVERYTHING, LONG) for _ in range(3)]
    for poll in waiting:
        poll.wait_blocked()
    ask(requester, device, b"wake up, all of you")
    assert [poll.result() for poll in waiting] == [READABLE] * 3
    answer(daemon, descriptor)


def test_epoll_reports_a_level_again_and_again(
    device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    epoll = daemon.call("epoll_open", descriptor, READABLE)
    for _ in range(100):
        waiting = daemon.start("epoll_wait", epoll, LONG)
        ask(requester, device, b"wake up")
        assert waiting.result() == READABLE
        assert daemon.call("epoll_wait", epoll, 0) == READABLE
        answer(daemon, descriptor)
        assert daemon.call("epoll_wait", epoll, 0) == 0


def test_epoll_reports_an_edge_once_per_queued_message(
    device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    epoll = daemon.call("epoll_open", descriptor, READABLE | select.EPOLLET)
    for _ in range(30):
        # Whether or not the one before it was read.
        waiting = daemon.start("epoll_wait", epoll, LONG)
        waiting.wait_blocked()
        ask(requester, device, b"an edge")
        assert waiting.result() == READABLE
        assert daemon.call("epoll_wait", epoll, 0) == 0
    for _ in range(30):
        answer(daemon, descriptor)
    assert daemon.call("epoll_wait", epoll, SHORT) == 0


def test_a_message_that_was_queued_before_is_an_edge_too(
    device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    ask(requester, device, b"early")
    epoll = daemon.call("epoll_open", descriptor, READABLE | select.EPOLLET)
    assert daemon.call("epoll_wait", epoll, 0) == READABLE
    assert daemon.call("epoll_wait", epoll, 0) == 0
    answer(daemon, descriptor)


def test_while_a_reader_is_blocked_poll_finds_nothing_and_is_not_woken(
    device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    read = daemon.start("raw_read", descriptor, PACKET_MAX)
    device.wait_status("daemons", 0, "flags", equals=["IN_READ", "MISCDEV_OPEN"])
    started = time.monotonic()
    poll = daemon.start("poll", descriptor, EVERYTHING, 0.5)
    poll.wait_blocked()
    for data in (b"for the reader", b"for nobody yet"):
        ask(requester, device, data)
    packet = read.result()
    assert message_of(packet).data == b"for the reader"
    # It sleeps for its full time, and finds the second message then.
    assert poll.result() == READABLE
    assert time.monotonic() - started > 0.4
    respond(daemon, descriptor, packet, b"")
    answer(daemon, descriptor)


def test_an_epoll_entered_while_a_reader_is_blocked_is_woken_only_once_it_is_modified(
    device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    read = daemon.start("raw_read", descriptor, PACKET_MAX)
    device.wait_status("daemons", 0, "flags", equals=["IN_READ", "MISCDEV_OPEN"])
    epoll = daemon.call("epoll_open", descriptor, READABLE)
    for data in (b"for the reader", b"for nobody yet"):
        ask(requester, device, data)
    packet = read.result()
    assert daemon.call("epoll_wait", epoll, SHORT) == 0
    daemon.call("epoll_modify", epoll, descriptor, READABLE)
    assert daemon.call("epoll_wait", epoll, 0) == READABLE
    respond(daemon, descriptor, packet, b"")
    answer(daemon, descriptor)


def test_an_epoll_survives_messages_that_a_blocked_reader_takes(
    device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    epoll = daemon.call("epoll_open", descriptor, READABLE)
    for _ in range(20):
        read = daemon.start("raw_read", descriptor, PACKET_MAX)
        device.wait_status("daemons", 0, "flags", equals=["IN_READ", "MISCDEV_OPEN"])
        waiting = daemon.start("epoll_wait", epoll, LONG)
        ask(requester, device, b"for the reader")
        respond(daemon, descriptor, read.result(), b"")
        ask(requester, device, b"for epoll")
        assert waiting.result() == READABLE
        answer(daemon, descriptor)


def test_others_go_on_while_somebody_polls(device: MountedDevice, clients: ClientFactory) -> None:
    poller, daemon, requester = clients(1000), clients(1001), clients(1001)
    polled = open_device(poller, device)
    poll = poller.start("poll", polled, EVERYTHING, LONG)
    poll.wait_blocked()
    descriptor = open_device(daemon, device)
    for _ in range(50):
        assert exchange(device, requester, daemon, descriptor, b"abc") == b"cba"
    assert not poll.is_done
    ask(poller, device, b"now you")
    assert poll.result() == READABLE
    answer(poller, polled)
