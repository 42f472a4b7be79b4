import errno
import select
from pathlib import Path

import pytest

from tests.client import Client
from tests.conftest import ClientFactory, let_everyone_in
from tests.device.traffic import (
    HELO,
    PACKET_MAX,
    ask,
    message_of,
    open_device,
    read_packet,
    refused,
    respond,
)
from tests.mounted import MountedDevice

USER = 1000


@pytest.fixture
def meeting_point(tmp_path: Path) -> str:
    """A path for a Unix socket that every user can reach."""
    let_everyone_in(tmp_path)
    tmp_path.chmod(0o777)
    return str(tmp_path / "socket")


def pass_on(path: str, descriptor: int, giver: Client, taker: Client) -> int:
    """Pass an open device over a Unix socket and close it here; the taker's descriptor."""
    taker.call("listen", path)
    receiving = taker.start("receive_descriptor", path)
    giver.call("send_descriptor", path, descriptor)
    giver.call("os.close", descriptor)
    received: int = receiving.result()
    return received


def test_a_descriptor_passed_to_another_user_acts_for_its_opener(
    device: MountedDevice, clients: ClientFactory, meeting_point: str
) -> None:
    root, user, requester = clients(), clients(USER), clients()
    passed = pass_on(meeting_point, open_device(root, device), root, user)
    assert user.call("os.write", passed, HELO) == len(HELO)
    assert user.call("poll", passed, 0xFFFF, 0) == 0
    request = ask(requester, device, b"for root")
    assert user.call("poll", passed, 0xFFFF, 0) == select.POLLIN | select.POLLRDNORM
    packet = read_packet(user, passed)
    assert message_of(packet).data == b"for root"
    respond(user, passed, packet, b"from a helper")
    assert requester.call("os.read", request, PACKET_MAX) == b"from a helper"


def test_who_was_passed_a_descriptor_may_have_a_daemon_of_their_own_besides(
    device: MountedDevice, clients: ClientFactory, meeting_point: str
) -> None:
    root, user = clients(), clients(USER)
    passed = pass_on(meeting_point, open_device(root, device), root, user)
    own = open_device(user, device)
    for requester, descriptor in ((root, passed), (user, own)):
        request = ask(requester, device, b"whose?")
        respond(user, descriptor, read_packet(user, descriptor), b"mine")
        assert requester.call("os.read", request, PACKET_MAX) == b"mine"
    with refused(errno.EINVAL):
        open_device(root, device)


def test_a_descriptor_under_way_keeps_the_daemon_registered(
    device: MountedDevice, clients: ClientFactory, meeting_point: str
) -> None:
    root, user = clients(), clients(USER)
    passed = pass_on(meeting_point, open_device(root, device), root, user)
    with refused(errno.EINVAL):
        open_device(root, device)
    user.call("os.close", passed)
    open_device(root, device)
