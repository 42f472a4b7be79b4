"""shut_down: nobody waits any more. Linux knows no such thing."""

import errno

from ecryptfs_cuse.core.messaging import DaemonFlag
from tests.core.emulation import OTHER_USER, USER, Device, refused


def test_blocked_readers_are_woken_and_return_no_octets(device: Device) -> None:
    daemons = [device.open(USER), device.open(OTHER_USER)]
    assert [device.read(daemon) for daemon in daemons] == [None, None]
    device.messaging.shut_down()
    assert device.woken == [USER, OTHER_USER]
    assert [device.resume(daemon) for daemon in daemons] == [b"", b""]


def test_several_blocked_readers_all_return(device: Device) -> None:
    daemon = device.open()
    assert [device.read(daemon) for _ in range(3)] == [None, b"", None]
    device.messaging.shut_down()
    assert [device.resume(daemon) for _ in range(2)] == [b"", b""]


def test_a_read_that_comes_later_returns_no_octets_whatever_is_queued(device: Device) -> None:
    daemon = device.open()
    device.send()
    device.messaging.shut_down()
    assert [device.read(daemon) for _ in range(3)] == [b"", b"", b""]


def test_a_poll_that_comes_later_sees_nothing(device: Device) -> None:
    daemon = device.open()
    device.send()
    device.messaging.shut_down()
    assert device.poll(daemon) == (0, False)
    assert not daemon.flags & DaemonFlag.IN_POLL


def test_requests_end_and_their_contexts_are_free(device: Device) -> None:
    daemon = device.open()
    requests = [device.send() for _ in range(3)]
    device.next_request(daemon)
    device.messaging.shut_down()
    assert sorted(device.finished) == [1, 2, 3]
    assert device.messaging.free_contexts == 32
    for request in requests:
        with refused(errno.ESHUTDOWN):
            request.take()


def test_no_daemon_and_no_request_is_let_in_afterwards(device: Device) -> None:
    device.open(USER)
    device.messaging.shut_down()
    with refused(errno.ENODEV):
        device.open(OTHER_USER)
    with refused(errno.ENODEV):
        device.send(identity=USER)


def test_a_response_that_comes_later_is_refused(device: Device) -> None:
    daemon = device.open()
    device.send()
    asked = device.next_request(daemon)
    device.messaging.shut_down()
    with refused(errno.EINVAL):
        device.answer(daemon, asked)


def test_devices_that_are_still_open_can_be_closed(device: Device) -> None:
    daemon = device.open()
    device.send()
    device.messaging.shut_down()
    device.close(daemon)
    assert list(device.messaging.daemons) == []


def test_shutting_down_twice_does_no_more_than_once(device: Device) -> None:
    device.open()
    device.send()
    device.messaging.shut_down()
    device.messaging.shut_down()
    assert device.finished == [1]


def test_whoever_sent_a_message_that_a_close_dropped_waits_no_longer_either(
    device: Device,
) -> None:
    daemon = device.open()
    request = device.send()
    device.close(daemon)
    device.messaging.shut_down()
    assert device.finished == [1]
    with refused(errno.ESHUTDOWN):
        request.take()
