"""poll: readable while a packet is queued, never writable, blind while a reader is inside."""

import select

from ecryptfs_cuse.core.messaging import DaemonFlag
from tests.core.emulation import Device, Seen

READABLE = select.POLLIN | select.POLLRDNORM
NOTHING = 0


def test_with_nothing_queued_there_are_no_events_and_the_poller_will_be_woken(
    device: Device,
) -> None:
    assert device.poll(device.open()) == (NOTHING, True)


def test_with_a_message_queued_the_device_is_readable_and_never_writable(device: Device) -> None:
    daemon = device.open()
    device.send()
    assert device.poll(daemon) == (READABLE, True)
    assert READABLE == 0x41


def test_a_message_wakes_pollers(device: Device) -> None:
    daemon = device.open()
    device.poll(daemon)
    device.send()
    device.send()
    assert device.woken == [daemon.identity] * 2


def test_polling_takes_nothing_from_the_queue(device: Device) -> None:
    daemon = device.open()
    device.send()
    assert [device.poll(daemon) for _ in range(3)] == [(READABLE, True)] * 3
    device.next_request(daemon)
    assert device.poll(daemon) == (NOTHING, True)


def test_while_a_reader_is_inside_there_are_no_events_and_nobody_will_be_woken(
    device: Device,
) -> None:
    daemon = device.open()
    assert device.read(daemon) is None
    assert device.poll(daemon) == (NOTHING, False)
    device.send()  # the reader is not yet resumed
    assert device.poll(daemon) == (NOTHING, False)


def test_polling_does_not_disturb_the_reader_inside(device: Device) -> None:
    daemon = device.open()
    assert device.read(daemon) is None
    device.poll(daemon)
    assert daemon.flags & DaemonFlag.IN_READ
    assert device.read(daemon) == b""


def test_once_the_second_reader_was_refused_polling_works_besides_the_first(
    device: Device,
) -> None:
    daemon = device.open()
    assert device.read(daemon) is None
    assert device.read(daemon) == b""
    assert device.poll(daemon) == (NOTHING, True)


def test_after_the_reader_was_interrupted_polling_works_again(device: Device) -> None:
    daemon = device.open()
    assert device.read(daemon) is None
    device.interrupt(daemon)
    device.send()
    assert device.poll(daemon) == (READABLE, True)


def test_a_poller_inside_makes_another_one_blind(device: Device) -> None:
    daemon = device.open()
    device.send()
    assert daemon.begin_poll()
    assert device.poll(daemon) == (NOTHING, False)
    assert device.poll(daemon) == (READABLE, True)  # who leaves clears the flag, let in or not


def test_what_is_left_of_a_message_that_timed_out_is_readable(device: Device) -> None:
    daemon = device.open()
    device.messaging.time_out(device.send())
    assert device.poll(daemon) == (READABLE, True)
    assert device.read(daemon, 4) == b""
    assert device.poll(daemon) == (READABLE, True)
    assert device.next_request(daemon) == Seen(1)
    assert device.poll(daemon) == (NOTHING, True)


def test_what_is_left_of_a_message_that_was_answered_unread_is_readable(device: Device) -> None:
    daemon = device.open()
    device.send()
    device.answer(daemon, Seen(1, 0))
    assert device.poll(daemon) == (READABLE, True)


def test_writing_makes_nothing_readable(device: Device) -> None:
    daemon = device.open()
    device.write(daemon, bytes.fromhex("6500000000"))
    assert device.poll(daemon) == (NOTHING, True)
