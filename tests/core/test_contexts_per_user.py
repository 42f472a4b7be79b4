"""How many message contexts one user may have at a time."""

import errno

import pytest

from ecryptfs_cuse.core.messaging import Identity, Messaging
from tests.core.emulation import OTHER_NAMESPACE, OTHER_USER, USER, Device, refused


def test_the_limit_leaves_the_rest_to_other_users() -> None:
    device = Device(4, contexts_per_user=2)
    device.open(USER)
    device.open(OTHER_USER)
    for identity in (USER, OTHER_USER):
        for _ in range(2):
            device.send(identity=identity)
        with refused(errno.ENOMEM):
            device.send(identity=identity)
    assert device.messaging.totals.requests_without_context == 2


def test_the_user_namespaces_of_a_uid_share_its_limit() -> None:
    device = Device(4, contexts_per_user=2)
    others = [Identity(USER.euid, 4026540000 + number) for number in range(3)]
    for identity in (USER, OTHER_NAMESPACE, *others):
        device.open(identity)
    device.send(identity=USER)
    device.send(identity=OTHER_NAMESPACE)
    for identity in (USER, OTHER_NAMESPACE, *others):
        with refused(errno.ENOMEM):
            device.send(identity=identity)


def test_any_end_of_a_request_makes_room() -> None:
    device = Device(4, contexts_per_user=1)
    daemon = device.open()
    device.exchange(daemon)
    device.messaging.time_out(device.send())
    abandoned = device.send()
    device.messaging.abandon(abandoned)
    with refused(errno.ENOMEM):
        device.send()
    device.messaging.time_out(abandoned)
    device.send()
    device.close(daemon)
    device.open()
    device.send()


def test_the_refusal_says_which_limit_it_is() -> None:
    device = Device(4, contexts_per_user=1)
    device.open()
    device.send()
    with pytest.raises(OSError, match="this user has as many requests under way as one may"):
        device.send()
    small = Device(1, contexts_per_user=1)
    small.open()
    small.send()
    with pytest.raises(OSError, match="every message context is in use"):
        small.send()


def test_without_a_limit_one_user_may_have_them_all() -> None:
    device = Device(4)
    device.open()
    for _ in range(4):
        device.send()


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_1_is_none(limit: int) -> None:
    with pytest.raises(ValueError, match="contexts_per_user is 1 or more"):
        Messaging(4, limit)


def test_refusals_are_counted() -> None:
    device = Device(1)
    for _ in range(2):
        with refused(errno.ENOTCONN):
            device.send()
    device.open()
    device.send()
    for _ in range(3):
        with refused(errno.ENOMEM):
            device.send()
    totals = device.messaging.totals
    assert (totals.requests_without_daemon, totals.requests_without_context) == (2, 3)
    assert totals.requests == 1
