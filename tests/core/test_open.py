"""open: one daemon for each user, that is effective uid and user namespace."""

import errno

from ecryptfs_cuse.core.messaging import DaemonFlag, Identity
from tests.core.emulation import OTHER_NAMESPACE, OTHER_USER, USER, Device, refused


def test_a_second_open_by_the_same_user_is_refused(device: Device) -> None:
    device.open()
    with refused(errno.EINVAL):
        device.open()
    with refused(errno.EINVAL):
        device.open(Identity(USER.euid, USER.user_namespace))


def test_a_refused_open_changes_nothing_for_the_daemon_that_is_there(device: Device) -> None:
    daemon = device.open()
    with refused(errno.EINVAL):
        device.open()
    device.exchange(daemon)
    assert list(device.messaging.daemons) == [daemon]


def test_other_users_open_independently(device: Device) -> None:
    daemons = [device.open(identity) for identity in (USER, OTHER_USER, OTHER_NAMESPACE)]
    assert list(device.messaging.daemons) == daemons


def test_the_same_uid_in_another_user_namespace_is_another_user(device: Device) -> None:
    daemon, elsewhere = device.open(USER), device.open(OTHER_NAMESPACE)
    device.send(b"for the one elsewhere", OTHER_NAMESPACE)
    assert device.read(daemon) is None
    assert device.next_request(elsewhere).data == b"for the one elsewhere"


def test_after_the_close_the_same_user_opens_again_at_once(device: Device) -> None:
    for _ in range(1000):
        device.close(device.open())
    device.open()


def test_one_users_close_leaves_the_others_alone(device: Device) -> None:
    daemon, other = device.open(USER), device.open(OTHER_USER)
    device.close(daemon)
    assert list(device.messaging.daemons) == [other]
    with refused(errno.EINVAL):
        device.open(OTHER_USER)


def test_a_daemon_is_open_from_open_to_close(device: Device) -> None:
    daemon = device.open()
    assert daemon.flags == DaemonFlag.MISCDEV_OPEN
    device.close(daemon)
    assert not daemon.flags


def test_opening_and_closing_wake_nobody(device: Device) -> None:
    device.open(OTHER_USER)
    device.close(device.open())
    assert device.woken == []
