import errno
import os
import sys
from pathlib import Path

import pytest

from tests.client import Client
from tests.conftest import ClientFactory, MountFactory
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
from tests.mounted import MountedDevice, run_command


def answer_everything(
    requester: Client, requests: list[int], daemon: Client, descriptor: int
) -> None:
    """Give every request its own data back."""
    packets = [read_packet(daemon, descriptor) for _ in requests]
    for packet in packets:
        respond(daemon, descriptor, packet, message_of(packet).data)
    for request in requests:
        requester.call("os.read", request, PACKET_MAX)
        requester.call("os.close", request)


def test_32_requests_wait_at_a_time_and_the_33rd_is_refused(
    device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    requests = [ask(requester, device, b"%d" % number) for number in range(32)]
    assert device.status()["contexts"]["free"] == 0
    one_more = requester.call("os.open", device.request_path, os.O_RDWR)
    with refused(errno.ENOMEM):
        requester.call("os.write", one_more, b"32")
    answer_everything(requester, requests, daemon, descriptor)
    assert requester.call("os.write", one_more, b"32") == 2
    answer_everything(requester, [one_more], daemon, descriptor)


def test_all_users_share_the_table(device: MountedDevice, clients: ClientFactory) -> None:
    users = [clients(1000), clients(1001)]
    descriptors = [open_device(user, device) for user in users]
    requests = [[ask(user, device, b"mine") for _ in range(16)] for user in users]
    one_more = users[0].call("os.open", device.request_path, os.O_RDWR)
    with refused(errno.ENOMEM):
        users[0].call("os.write", one_more, b"one more")
    answer_everything(users[1], requests[1], users[1], descriptors[1])
    assert users[0].call("os.write", one_more, b"one more") == 8
    answer_everything(users[0], [*requests[0], one_more], users[0], descriptors[0])


def test_answers_may_come_in_any_order(device: MountedDevice, clients: ClientFactory) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    requests = [ask(requester, device, b"%d" % number) for number in range(8)]
    packets = [read_packet(daemon, descriptor) for _ in requests]
    for place in (3, 7, 0, 1, 6, 2, 5, 4):
        respond(daemon, descriptor, packets[place], b"answer %d" % place)
    answers = [requester.call("os.read", request, PACKET_MAX) for request in requests]
    assert answers == [b"answer %d" % number for number in range(8)]


def test_a_context_that_was_freed_last_is_used_next(
    device: MountedDevice, clients: ClientFactory
) -> None:
    client = clients()
    descriptor = open_device(client, device)
    requests = [ask(client, device, b"%d" % number) for number in range(3)]
    packets = [read_packet(client, descriptor) for _ in requests]
    for packet in (packets[0], packets[2], packets[1]):
        respond(client, descriptor, packet, b"")
    for expected in (packets[1], packets[2], packets[0]):
        ask(client, device, b"next")
        packet = read_packet(client, descriptor)
        assert message_of(packet).index == message_of(expected).index
        packets.append(packet)
    for packet in packets[3:]:
        respond(client, descriptor, packet, b"")


def test_a_request_that_nobody_answers_times_out(
    hasty_device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, hasty_device)
    request = ask(requester, hasty_device, b"anybody?")
    packet = read_packet(daemon, descriptor)
    with refused(errno.ENOMSG):
        requester.call("raw_read", request, PACKET_MAX)
    assert hasty_device.status()["contexts"]["in_use"] == []
    with refused(errno.EINVAL):
        respond(daemon, descriptor, packet, b"too late")
    # Both go on as if nothing had been.
    assert requester.call("raw_read", request, PACKET_MAX) == b""
    assert requester.call("os.write", request, b"again") == 5
    respond(daemon, descriptor, read_packet(daemon, descriptor), b"in time")
    assert requester.call("raw_read", request, PACKET_MAX) == b"in time"


def test_a_request_that_times_out_unread_leaves_a_packet_of_5_octets(
    hasty_device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, hasty_device)
    request = ask(requester, hasty_device, b"unread")
    with refused(errno.ENOMSG):
        requester.call("raw_read", request, PACKET_MAX)
    counter = hasty_device.status()["counter"]
    assert daemon.call("poll", descriptor, 0xFFFF, 0) == 0x41
    assert daemon.call("raw_read", descriptor, 4) == b""
    packet = daemon.call("raw_read", descriptor, PACKET_MAX)
    assert packet == bytes((102,)) + counter.to_bytes(4, "big")
    assert daemon.call("poll", descriptor, 0xFFFF, 0) == 0


def test_a_request_whose_file_was_closed_frees_its_context_after_the_time_out(
    hasty_device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    open_device(daemon, hasty_device)
    requester.call("os.close", ask(requester, hasty_device, b"never mind"))
    hasty_device.wait_status("contexts", "in_use", equals=[])
    assert hasty_device.status()["daemons"][0]["queued"] == 1


@pytest.mark.channel_only("it knows no interrupts: the requester would not die")
def test_a_request_whose_process_was_killed_frees_its_context_after_the_time_out(
    hasty_device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, hasty_device)
    request = ask(requester, hasty_device, b"last words")
    requester.start("raw_read", request, PACKET_MAX).wait_blocked()
    requester.kill()
    requester.wait()
    packet = read_packet(daemon, descriptor)
    hasty_device.wait_status("contexts", "in_use", equals=[])
    with refused(errno.EINVAL):
        respond(daemon, descriptor, packet, b"too late")


def test_closing_the_device_drops_what_was_not_read(
    hasty_device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, hasty_device)
    request = ask(requester, hasty_device, b"for the first")
    daemon.call("os.close", descriptor)
    descriptor = open_device(daemon, hasty_device)
    assert daemon.call("poll", descriptor, 0xFFFF, 0) == 0
    with refused(errno.ENOMSG):
        requester.call("raw_read", request, PACKET_MAX)
    assert exchange(hasty_device, requester, daemon, descriptor, b"abc") == b"cba"


def test_a_new_daemon_of_the_user_may_answer_what_the_one_before_has_read(
    device: MountedDevice, clients: ClientFactory
) -> None:
    first, second, requester = clients(), clients(), clients()
    descriptor = open_device(first, device)
    request = ask(requester, device, b"half done")
    packet = read_packet(first, descriptor)
    first.kill()
    first.wait()
    descriptor = open_device(second, device)
    respond(second, descriptor, packet, b"done")
    assert requester.call("os.read", request, PACKET_MAX) == b"done"


def test_a_table_of_no_contexts_refuses_everything(
    mount: MountFactory, clients: ClientFactory
) -> None:
    device = mount("--message-buf-len", "0")
    daemon, requester = clients(), clients()
    open_device(daemon, device)
    request = requester.call("os.open", device.request_path, os.O_RDWR)
    with refused(errno.ENOMEM):
        requester.call("os.write", request, b"anything")


def test_the_length_of_the_table_can_be_chosen(mount: MountFactory, clients: ClientFactory) -> None:
    device = mount("--message-buf-len", "2")
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    requests = [ask(requester, device, b"%d" % number) for number in range(2)]
    one_more = requester.call("os.open", device.request_path, os.O_RDWR)
    with refused(errno.ENOMEM):
        requester.call("os.write", one_more, b"2")
    packets = [read_packet(daemon, descriptor) for _ in requests]
    assert [message_of(packet).index for packet in packets] == [0, 1]
    assert [packet[1:5] for packet in packets] == [b"\0\0\0\1", b"\0\0\0\2"]
    with refused(errno.EINVAL):
        daemon.call("os.write", descriptor, response_to(packets[0], b"")[:-4] + b"\0\0\0\1")
    for packet in packets:
        respond(daemon, descriptor, packet, b"")


@pytest.mark.parametrize("timeout", ["0", "-1"])
def test_without_any_time_to_wait_a_request_fails_at_once(
    mount: MountFactory, clients: ClientFactory, timeout: str
) -> None:
    device = mount("--message-wait-timeout", timeout)
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    request = ask(requester, device, b"no time")
    with refused(errno.ENOMSG):
        requester.call("raw_read", request, PACKET_MAX)
    assert len(read_packet(daemon, descriptor)) == 5


def test_a_limit_for_each_user_leaves_contexts_to_the_others(
    mount: MountFactory, clients: ClientFactory
) -> None:
    device = mount(
        *("--message-buf-len", "3"),
        *("--contexts-per-user", "2"),
        *("--message-wait-timeout", "60"),
    )
    user, inside, other = clients(1000), clients(1000, "unshare", "-U"), clients(1001)
    descriptors = [open_device(client, device) for client in (user, inside, other)]
    requests = [ask(user, device, b"first"), ask(inside, device, b"in a namespace of its own")]
    for client in (user, inside):
        one_more = client.call("os.open", device.request_path, os.O_RDWR)
        with refused(errno.ENOMEM):
            client.call("os.write", one_more, b"one more")
    answer_everything(other, [ask(other, device, b"of the other")], other, descriptors[2])
    status = device.status()
    assert status["contexts"]["per_user"] == 2
    assert status["totals"]["requests_without_context"] == 2
    shown = run_command("status", "--mount", str(device.mountpoint)).stdout
    assert "1 of 3 free, 2 at most for each user" in " ".join(shown.split())
    assert "2 requests without context" in " ".join(shown.split())
    raw = ("request", "raw", "--mount", str(device.mountpoint), "42")
    done = run_command(*raw, prefix=("setpriv", "--reuid=1000", "--clear-groups"))
    assert (done.returncode, done.stderr) == (
        1,
        "Error: too many requests are waiting: every message context that you may use is in use\n",
    )
    answer_everything(user, requests[:1], user, descriptors[0])
    answer_everything(inside, requests[1:], inside, descriptors[1])


@pytest.mark.parametrize("limit", ["0", "-1", "many"])
def test_a_limit_that_is_none_is_wrong_usage(tmp_path: Path, limit: str) -> None:
    done = run_command("mount", str(tmp_path), "--contexts-per-user", limit)
    assert done.returncode == 2
    assert "Invalid value for '--contexts-per-user'" in done.stderr


def test_a_daemon_that_answers_without_reading_has_few_packets_to_read(
    mount: MountFactory, clients: ClientFactory
) -> None:
    device = mount("--message-wait-timeout", "60")
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    for _ in range(40):
        request = ask(requester, device, b"guess")
        (context,) = device.status()["contexts"]["in_use"]
        counter, index = context["counter"].to_bytes(4, "big"), context["index"]
        body = index.to_bytes(4, sys.byteorder) + bytes(4)
        daemon.call("os.write", descriptor, b"g" + counter + bytes((8,)) + body)
        assert requester.call("raw_read", request, PACKET_MAX) == b""
    assert device.status()["daemons"][0]["queued"] == 2
    assert daemon.call("poll", descriptor, 0xFFFF, 0) == 0x41
    for _ in range(2):
        assert len(read_packet(daemon, descriptor)) == 5
    assert daemon.call("poll", descriptor, 0xFFFF, 0) == 0
