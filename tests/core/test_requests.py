"""Requests: who is asked, which context and counter they get, and how they end."""

import errno
from itertools import pairwise

import pytest

from ecryptfs_cuse.core.messaging import COUNTER_MODULUS, ContextState, Messaging
from ecryptfs_cuse.wire.errors import BuildError
from tests.core.emulation import OTHER_NAMESPACE, OTHER_USER, USER, Device, Seen, refused
from tests.kept import kept


def test_without_a_daemon_of_the_requesters_there_is_no_connection(device: Device) -> None:
    with refused(errno.ENOTCONN):
        device.send(identity=USER)
    device.open(OTHER_USER)
    device.open(OTHER_NAMESPACE)
    with refused(errno.ENOTCONN):
        device.send(identity=USER)
    assert device.woken == []


def test_number_33_is_out_of_memory_while_32_wait(device: Device) -> None:
    daemon = device.open()
    requests = [device.send() for _ in range(32)]
    for _ in range(4):
        with refused(errno.ENOMEM):
            device.send()
    read = [device.next_request(daemon) for _ in requests]
    assert [seen.index for seen in read] == list(range(32))
    assert device.read(daemon) is None  # of those refused nothing was queued


def test_the_table_is_full_for_all_users_together(device: Device) -> None:
    device.open(USER)
    device.open(OTHER_USER)
    for number in range(32):
        device.send(identity=(USER, OTHER_USER)[number % 2])
    for identity in (USER, OTHER_USER):
        with refused(errno.ENOMEM):
            device.send(identity=identity)


def test_any_end_of_a_request_makes_room_for_another() -> None:
    device = Device(1)
    daemon = device.open()
    device.send()
    with refused(errno.ENOMEM):
        device.send()
    device.answer(daemon, device.next_request(daemon))
    request = device.send()
    with refused(errno.ENOMEM):
        device.send()
    device.messaging.time_out(request)
    device.send()


def test_no_daemon_is_reported_before_no_memory() -> None:
    device = Device(1)
    daemon = device.open()
    device.send()
    with refused(errno.ENOTCONN):
        device.send(identity=OTHER_USER)
    device.next_request(daemon)
    device.close(daemon)
    with refused(errno.ENOTCONN):
        device.send()


def test_a_refused_request_takes_no_counter_and_no_context() -> None:
    device = Device(1)
    daemon = device.open()
    with refused(errno.ENOTCONN):
        device.send(identity=OTHER_USER)
    with pytest.raises(BuildError):
        device.send(bytes(8376))
    request = device.send()
    with refused(errno.ENOMEM):
        device.send()
    device.messaging.time_out(request)
    device.send()
    assert [device.next_request(daemon).counter for _ in range(2)] == [1, 2]
    assert device.messaging.counter == device.messaging.totals.requests == 2


def test_the_longest_data_that_a_message_can_carry_are_sent(device: Device) -> None:
    daemon = device.open()
    device.send(bytes(8375))
    assert len(device.read(daemon, 1 << 16) or b"") == 5 + 2 + 8 + 8375


@pytest.mark.parametrize("index", [0, 32, 0xFFFF_FFFF])
def test_with_a_message_buf_len_of_0_there_is_never_memory_and_never_a_response(
    index: int,
) -> None:
    device = Device(0)
    daemon = device.open()
    for _ in range(2):
        with refused(errno.ENOMEM):
            device.send()
    with refused(errno.EINVAL):
        device.answer(daemon, Seen(1, index))
    assert device.poll(daemon) == (0, True)


@pytest.mark.parametrize("message_buf_len", [2, 64])
def test_the_table_is_as_long_as_message_buf_len(message_buf_len: int) -> None:
    device = Device(message_buf_len)
    daemon = device.open()
    for _ in range(message_buf_len):
        device.send()
    with refused(errno.ENOMEM):
        device.send()
    read = [device.next_request(daemon) for _ in range(message_buf_len)]
    for request in read:
        device.answer(daemon, request)
    assert device.messaging.free_contexts == message_buf_len


def test_counters_start_at_1_and_count_all_users_requests_together(device: Device) -> None:
    daemon, other = device.open(USER), device.open(OTHER_USER)
    for identity in (USER, OTHER_USER, OTHER_USER, USER):
        device.send(identity=identity)
    assert [device.next_request(daemon).counter for _ in range(2)] == [1, 4]
    assert [device.next_request(other).counter for _ in range(2)] == [2, 3]


def test_the_counter_wraps_around_after_32_bits(device: Device) -> None:
    daemon = device.open()
    device.messaging.counter = COUNTER_MODULUS - 2
    counters = [device.exchange(daemon).counter for _ in range(3)]
    assert counters == [0xFFFF_FFFF, 0, 1]


def test_twelve_requests_one_after_the_other_all_have_the_index_0(device: Device) -> None:
    daemon = device.open()
    exchanges = [device.exchange(daemon) for _ in range(12)]
    assert [(seen.counter, seen.index) for seen in exchanges] == [(n, 0) for n in range(1, 13)]


def test_the_context_freed_last_is_used_next(device: Device) -> None:
    daemon = device.open()

    def ask(number: int) -> list[Seen]:
        for _ in range(number):
            device.send()
        return [device.next_request(daemon) for _ in range(number)]

    waiting = {seen.index: seen for seen in ask(6)}
    assert list(waiting) == [0, 1, 2, 3, 4, 5]
    for index in (3, 0, 5):
        device.answer(daemon, waiting.pop(index))
    later = ask(4)
    assert [seen.index for seen in later] == [5, 0, 3, 6]
    waiting |= {seen.index: seen for seen in later}
    for index in (2, 5, 4, 1, 6, 0, 3):
        device.answer(daemon, waiting.pop(index))
    assert device.exchange(daemon).index == 3
    assert [seen.index for seen in ask(32)] == [3, 0, 6, 1, 4, 5, 2, *range(7, 32)]


def test_all_users_share_the_indexes(device: Device) -> None:
    daemon, other = device.open(USER), device.open(OTHER_USER)
    for identity in (USER, OTHER_USER, USER):
        device.send(identity=identity)
    assert [device.next_request(daemon).index for _ in range(2)] == [0, 2]
    asked = device.next_request(other)
    assert asked.index == 1
    device.answer(other, asked)
    device.send(identity=USER)
    assert device.next_request(daemon).index == 1


def test_a_time_out_ends_a_request_in_no_message_and_frees_its_context(device: Device) -> None:
    device.open()
    request = device.send()
    device.messaging.time_out(request)
    assert device.finished == [1]
    assert device.messaging.free_contexts == 32
    assert device.messaging.totals.timeouts == 1
    with refused(errno.ENOMSG):
        request.take()


def test_a_late_response_is_refused_whether_the_message_was_read_or_not(device: Device) -> None:
    daemon = device.open()
    request = device.send()
    asked = device.next_request(daemon)
    device.messaging.time_out(request)
    with refused(errno.EINVAL):
        device.answer(daemon, asked)
    device.messaging.time_out(device.send())
    with refused(errno.EINVAL):
        device.answer(daemon, Seen(2, 0))


def test_a_late_response_is_refused_while_the_next_request_uses_the_same_context(
    device: Device,
) -> None:
    daemon = device.open()
    request = device.send()
    stale = device.next_request(daemon)
    device.messaging.time_out(request)
    later = device.send()
    fresh = device.next_request(daemon)
    assert fresh.index == stale.index
    with refused(errno.EINVAL):
        device.answer(daemon, stale)
    device.answer(daemon, fresh, b"right")
    assert later.take() == b"right"


def test_a_time_out_after_the_answer_does_nothing(device: Device) -> None:
    daemon = device.open()
    request = device.send()
    device.answer(daemon, device.next_request(daemon))
    later = device.send()  # in the same message context
    device.messaging.time_out(request)
    assert device.finished == [1]
    assert device.messaging.totals.timeouts == 0
    assert later.context is not None
    assert later.context.state is ContextState.PENDING
    assert request.take() == b"answer"


def test_an_answer_is_taken_once_and_not_before_it_is_there(device: Device) -> None:
    daemon = device.open()
    request = device.send()
    with pytest.raises(RuntimeError):
        request.take()
    device.answer(daemon, device.next_request(daemon))
    assert request.take() == b"answer"
    with pytest.raises(RuntimeError):
        request.take()


def test_the_requester_is_told_once_and_may_ask_again_from_there(device: Device) -> None:
    daemon = device.open()
    asked_again = []

    def ask_again() -> None:
        asked_again.append(device.send(b"again"))

    device.messaging.send_message(USER, b"first", ask_again)
    device.answer(daemon, device.next_request(daemon))
    assert len(asked_again) == 1
    assert device.next_request(daemon) == Seen(2, 0, b"again")


def test_an_abandoned_request_changes_nothing_for_the_daemon(device: Device) -> None:
    daemon = device.open()
    device.messaging.abandon(device.send(b"question"))
    assert device.poll(daemon)[0]
    asked = device.next_request(daemon)
    assert asked == Seen(1, 0, b"question")
    assert device.messaging.free_contexts == 31
    device.answer(daemon, asked)
    assert device.messaging.free_contexts == 32
    with refused(errno.EINVAL):
        device.answer(daemon, asked)
    assert device.finished == []  # nobody was told


def test_an_abandoned_request_gives_its_context_back_when_its_time_is_over(
    device: Device,
) -> None:
    daemon = device.open()
    request = device.send()
    device.messaging.abandon(request)
    asked = device.next_request(daemon)
    device.messaging.time_out(request)
    assert device.messaging.free_contexts == 32
    assert device.finished == []
    with refused(errno.EINVAL):
        device.answer(daemon, asked)


def test_the_answer_to_an_abandoned_request_is_not_kept(device: Device) -> None:
    daemon = device.open()
    request = device.send()
    device.messaging.abandon(request)
    device.answer(daemon, device.next_request(daemon))
    with pytest.raises(RuntimeError):
        request.take()


def test_abandoning_a_finished_request_forgets_its_answer(device: Device) -> None:
    daemon = device.open()
    request = device.send()
    device.answer(daemon, device.next_request(daemon))
    device.messaging.abandon(request)
    with pytest.raises(RuntimeError):
        request.take()


def test_of_a_finished_request_no_message_is_kept(device: Device) -> None:
    daemon = device.open()
    _, unread = device.send(b"secret"), device.send(b"secret")
    assert kept(device.messaging)[bytes] == 2
    device.next_request(daemon)
    assert kept(device.messaging)[bytes] == 1
    device.messaging.time_out(unread)
    assert kept(device.messaging)[bytes] == 0


def test_the_repr_of_what_holds_a_message_does_not_show_it(device: Device) -> None:
    daemon = device.open()
    request = device.send(b"Swordfish~Secret")
    entry = next(iter(daemon.out_queue))
    for holder in (request, entry, daemon.out_queue, request.context, daemon):
        for form in ("Swordfish", b"Swordfish".hex()):
            assert form not in repr(holder)


def test_a_fresh_table_is_free_and_in_the_order_of_its_indexes() -> None:
    contexts = Messaging(32).contexts
    assert all(context.state is ContextState.FREE for context in contexts)
    assert all(one.index + 1 == other.index for one, other in pairwise(contexts))
