"""Where the device differs from the kernel's: the sections of docs/deviations.md."""

import errno
import os
import stat

import pytest

from tests.conftest import ClientFactory
from tests.device.traffic import (
    HELO,
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


def test_foreign_response_the_daemon_of_another_user_cannot_answer(
    device: MountedDevice, clients: ClientFactory
) -> None:
    root, user, requester = clients(), clients(1000), clients()
    own, foreign = open_device(root, device), open_device(user, device)
    request = ask(requester, device, b"for root alone")
    packet = read_packet(root, own)
    with refused(errno.EINVAL):
        respond(user, foreign, packet, b"from a stranger")
    respond(root, own, packet, b"from root")
    assert requester.call("os.read", request, PACKET_MAX) == b"from root"


@pytest.mark.parametrize("whence", [os.SEEK_SET, os.SEEK_CUR, os.SEEK_END])
def test_no_position_seeking_gives_espipe(
    device: MountedDevice, clients: ClientFactory, whence: int
) -> None:
    client = clients()
    descriptor = open_device(client, device)
    with refused(errno.ESPIPE):
        client.call("lseek", descriptor, 0, whence)


def test_no_position_reading_and_writing_at_one_give_espipe(
    device: MountedDevice, clients: ClientFactory
) -> None:
    client = clients()
    descriptor = open_device(client, device)
    with refused(errno.ESPIPE):
        client.call("os.pread", descriptor, 100, 0)
    with refused(errno.ESPIPE):
        client.call("os.pwrite", descriptor, HELO, 0)
    assert exchange(device, client, client, descriptor, b"abc") == b"cba"


def test_regular_file_is_what_fstat_says(device: MountedDevice, clients: ClientFactory) -> None:
    client = clients()
    found = client.call("os.fstat", open_device(client, device))
    assert stat.S_ISREG(found.st_mode)
    assert (found.st_size, found.st_rdev, found.st_nlink) == (0, 0, 1)


def test_empty_read_returns_at_once(device: MountedDevice, clients: ClientFactory) -> None:
    client = clients()
    assert client.call("raw_read", open_device(client, device), 0) == b""


def test_vectors_are_joined(device: MountedDevice, clients: ClientFactory) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    assert daemon.call("os.writev", descriptor, [HELO[:2], HELO[2:]]) == len(HELO)
    with refused(errno.EINVAL):
        daemon.call("os.writev", descriptor, [HELO, HELO])
    ask(requester, device, b"over two buffers")
    packet = daemon.call("read_vector", descriptor, [10, 100])
    assert message_of(packet).data == b"over two buffers"
    respond(daemon, descriptor, packet, b"")


def test_requester_gone_its_message_is_still_read_and_its_answer_accepted(
    device: MountedDevice, clients: ClientFactory
) -> None:
    daemon, requester = clients(), clients()
    descriptor = open_device(daemon, device)
    request = ask(requester, device, b"never mind")
    requester.call("os.close", request)
    packet = read_packet(daemon, descriptor)
    assert message_of(packet).data == b"never mind"
    respond(daemon, descriptor, packet, b"too late")
    with refused(errno.EINVAL):
        respond(daemon, descriptor, packet, b"again")
