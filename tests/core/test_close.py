"""close: what becomes of the messages, and of those who wait for an answer."""

import errno

from ecryptfs_cuse.core.messaging import ContextState, Daemon, Request
from tests.core.emulation import OTHER_USER, USER, Device, Seen, refused
from tests.kept import kept


def test_closing_drops_what_is_queued_and_counts_it(device: Device) -> None:
    daemon = device.open()
    for _ in range(3):
        device.send()
    device.next_request(daemon)
    device.close(daemon)
    assert device.messaging.totals.messages_dropped == 2
    daemon = device.open()
    device.send()
    device.close(daemon)
    assert device.messaging.totals.messages_dropped == 3


def test_closing_frees_the_contexts_of_queued_messages_alone(device: Device) -> None:
    daemon = device.open()
    read, queued = device.send(), device.send()
    device.next_request(daemon)
    device.close(daemon)
    assert device.messaging.free_contexts == 31
    assert queued.context is None
    assert read.context is not None
    assert read.context.state is ContextState.PENDING


def test_the_last_context_freed_by_a_close_is_used_next(device: Device) -> None:
    daemon = device.open()
    for _ in range(3):
        device.send()
    device.close(daemon)
    daemon = device.open()
    assert [device.exchange(daemon).index for _ in range(2)] == [2, 2]


def test_a_dropped_message_is_not_given_to_the_next_daemon(device: Device) -> None:
    device.open()
    device.send()
    device.close(next(device.messaging.daemons))
    daemon = device.open()
    assert device.poll(daemon) == (0, True)
    assert device.read(daemon) is None


def test_whoever_sent_a_dropped_message_waits_until_the_time_out(device: Device) -> None:
    daemon = device.open()
    request = device.send()
    device.close(daemon)
    assert device.finished == []
    assert not request.is_finished
    device.messaging.time_out(request)
    assert device.finished == [1]
    with refused(errno.ENOMSG):
        request.take()


def test_a_dropped_message_cannot_be_answered(device: Device) -> None:
    daemon = device.open()
    device.send()
    device.close(daemon)
    with refused(errno.EINVAL):
        device.answer(device.open(), Seen(1, 0))


def test_the_time_out_of_a_dropped_message_spares_the_request_that_has_its_context_now(
    device: Device,
) -> None:
    daemon = device.open()
    dropped = device.send()
    device.close(daemon)
    daemon = device.open()
    later = device.send()
    asked = device.next_request(daemon)
    assert asked.index == 0
    device.messaging.time_out(dropped)
    assert device.messaging.free_contexts == 31
    device.answer(daemon, asked, b"right")
    assert later.take() == b"right"
    assert device.messaging.free_contexts == 32


def test_a_message_that_was_read_can_be_answered_by_the_users_next_daemon(
    device: Device,
) -> None:
    daemon = device.open()
    request = device.send()
    asked = device.next_request(daemon)
    device.close(daemon)
    device.answer(device.open(), asked, b"from the next one")
    assert request.take() == b"from the next one"


def test_a_message_that_was_read_cannot_be_answered_by_another_users_daemon(
    device: Device,
) -> None:
    daemon, other = device.open(USER), device.open(OTHER_USER)
    request = device.send(identity=USER)
    asked = device.next_request(daemon)
    device.close(daemon)
    with refused(errno.EINVAL):
        device.answer(other, asked)
    device.messaging.time_out(request)
    with refused(errno.ENOMSG):
        request.take()


def test_a_read_message_whose_time_is_over_can_be_answered_by_nobody(device: Device) -> None:
    daemon = device.open()
    request = device.send()
    asked = device.next_request(daemon)
    device.close(daemon)
    device.messaging.time_out(request)
    with refused(errno.EINVAL):
        device.answer(device.open(), asked)


def test_what_is_left_of_messages_that_are_over_is_dropped_too(device: Device) -> None:
    daemon = device.open()
    device.messaging.time_out(device.send())
    device.close(daemon)
    assert device.messaging.free_contexts == 32
    daemon = device.open()
    assert device.read(daemon) is None
    device.interrupt(daemon)
    assert device.exchange(daemon) == Seen(2, 0, b"question")


def test_after_the_close_there_is_no_connection(device: Device) -> None:
    device.close(device.open())
    with refused(errno.ENOTCONN):
        device.send()


def test_an_abandoned_message_that_is_queued_is_dropped_like_any_other(device: Device) -> None:
    daemon = device.open()
    request = device.send()
    device.messaging.abandon(request)
    device.close(daemon)
    assert device.messaging.free_contexts == 32
    device.messaging.time_out(request)
    assert device.messaging.free_contexts == 32
    assert device.finished == []


def fill_and_answer(device: Device, daemon: Daemon, *indexes: int) -> None:
    """Use every context, and answer these, in this order, before they are read."""
    for _ in range(device.messaging.free_contexts):
        device.send()
    for index in indexes:
        device.answer(daemon, Seen(1 + index, index))


def test_a_close_moves_the_contexts_of_stale_entries_to_the_head_again() -> None:
    device = Device(4)
    daemon = device.open()
    fill_and_answer(device, daemon, 1, 3, 0)
    device.close(daemon)  # it frees 0, 1, 2 and 3
    daemon = device.open()
    for _ in range(4):
        device.send()
    assert [device.next_request(daemon).index for _ in range(4)] == [3, 2, 1, 0]


def test_a_close_spares_the_context_of_a_stale_entry_that_is_in_use_again() -> None:
    device = Device(2)
    daemon, other = device.open(), device.open(OTHER_USER)
    fill_and_answer(device, daemon, 0)
    device.send(identity=OTHER_USER)  # with the index 0
    device.close(daemon)
    asked = device.next_request(other)
    assert asked.index == 0
    device.answer(other, asked)


def test_the_time_out_of_a_dropped_message_moves_its_context_to_the_head_again() -> None:
    device = Device(3)
    daemon = device.open()
    read, dropped = device.send(), device.send()
    asked = device.next_request(daemon)
    device.close(daemon)
    daemon = device.open()
    device.answer(daemon, asked)
    assert read.take() == b"answer"
    device.messaging.time_out(dropped)
    assert device.exchange(daemon).index == 1


def test_an_abandoned_request_is_over_once_its_daemon_closes_with_it_queued(device: Device) -> None:
    """However long its time-out: nobody waits for that."""
    for _ in range(100):
        daemon = device.open()
        before, after = device.send(), device.send()
        device.messaging.abandon(before)
        device.close(daemon)
        device.messaging.abandon(after)
        assert before.is_finished
        assert after.is_finished
    assert kept(device.messaging)[Request] == 0
    assert device.finished == []


def test_a_request_that_somebody_waits_for_is_not_over_with_its_daemon(device: Device) -> None:
    daemon = device.open()
    request = device.send()
    device.close(daemon)
    assert not request.is_finished
    assert kept(device.messaging)[Request] == 1
    device.messaging.time_out(request)
    assert kept(device.messaging)[Request] == 0
