"""A message that is over before it is read leaves a packet of five octets: one, and not many."""

import pytest

from ecryptfs_cuse.core.messaging import Daemon, QueueEntry
from tests.core.emulation import OTHER_USER, USER, Device, Seen
from tests.kept import kept

READABLE = (0x41, True)
NOTHING = (0, True)


def answer_unread(device: Device, daemon: Daemon) -> None:
    """Raise a request and have it answered by a guess."""
    request = device.send()
    assert request.context is not None
    device.answer(daemon, Seen(request.counter, request.context.index))
    assert request.take() == b"answer"


@pytest.mark.parametrize("is_answered", [True, False])
def test_a_daemon_that_never_reads_costs_no_more_than_one_that_reads(is_answered: bool) -> None:
    device = Device(4)
    daemon = device.open()
    for _ in range(1000):
        if is_answered:
            answer_unread(device, daemon)
        else:
            device.messaging.time_out(device.send())
        assert len(daemon.out_queue) <= 2
    assert kept(device.messaging)[QueueEntry] == 2


def test_every_context_may_leave_one_and_all_are_read_in_their_order() -> None:
    device = Device(4)
    daemon = device.open()
    for request in [device.send() for _ in range(4)]:
        device.messaging.time_out(request)
    assert [device.next_request(daemon) for _ in range(4)] == [Seen(n) for n in range(1, 5)]
    assert device.poll(daemon) == NOTHING


def test_the_next_request_in_its_context_is_read_after_it(device: Device) -> None:
    daemon = device.open()
    device.messaging.time_out(device.send())
    device.send()
    assert device.next_request(daemon) == Seen(1)
    assert device.next_request(daemon) == Seen(2, 0, b"question")


def test_the_latest_of_those_whose_context_is_in_use_again_is_left(device: Device) -> None:
    daemon = device.open()
    for _ in range(5):
        device.messaging.time_out(device.send())
    device.send()
    assert device.next_request(daemon) == Seen(5)
    assert device.next_request(daemon) == Seen(6, 0, b"question")
    assert device.poll(daemon) == NOTHING


def test_what_poll_has_announced_is_there_whatever_another_user_asks(device: Device) -> None:
    daemon, other = device.open(USER), device.open(OTHER_USER)
    device.messaging.time_out(device.send(identity=USER))
    assert device.poll(daemon) == READABLE
    for number in range(2, 5):
        device.send(identity=OTHER_USER)  # in the context of the message that was never read
        assert device.poll(daemon) == READABLE
        asked = device.next_request(other)
        assert asked == Seen(number, 0, b"question")
        device.answer(other, asked)
    assert device.next_request(daemon) == Seen(1)
    assert device.poll(daemon) == NOTHING


def test_nothing_of_another_users_message_shows_in_the_queue_of_the_user_before(
    device: Device,
) -> None:
    daemon, other = device.open(USER), device.open(OTHER_USER)
    device.messaging.time_out(device.send(b"mine", USER))
    device.send(b"not yours", OTHER_USER)
    assert device.next_request(daemon) == Seen(1)
    assert device.read(daemon) is None
    assert device.next_request(other) == Seen(2, 0, b"not yours")


def test_a_close_forgets_them(device: Device) -> None:
    daemon = device.open()
    for _ in range(3):
        device.messaging.time_out(device.send())
    device.send()
    device.close(daemon)
    assert kept(device.messaging)[QueueEntry] == kept(device.messaging)[Daemon] == 0
