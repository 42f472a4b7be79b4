"""read: what it returns, when it blocks (None here), and who gets a message."""

import errno

import pytest

from ecryptfs_cuse.core.messaging import DaemonFlag
from tests.core.emulation import ENOUGH, OTHER_USER, USER, Device, Seen, refused, seen


def test_a_request_is_read_octet_for_octet_as_the_kernel_writes_it(device: Device) -> None:
    daemon = device.open()
    device.send(b"\x42\x10" + b"0123456789abcdef" + bytes(20))
    octets = device.read(daemon)
    assert octets is not None
    assert octets[:6] == bytes.fromhex("66 00000001 2e")
    assert octets[14:] == b"\x42\x10" + b"0123456789abcdef" + bytes(20)
    assert seen(octets).index == 0


@pytest.mark.parametrize(
    ("data_len", "header"), [(183, "66 00000001 bf"), (184, "66 00000001 c000")]
)
def test_the_length_takes_two_octets_from_192_on(
    device: Device, data_len: int, header: str
) -> None:
    daemon = device.open()
    device.send(bytes(data_len))
    octets = device.read(daemon)
    assert octets is not None
    assert octets.startswith(bytes.fromhex(header))
    assert len(octets) == len(bytes.fromhex(header)) + 8 + data_len


@pytest.mark.parametrize("count", [0, 1, 4, 5, 1000])
def test_a_read_of_an_empty_queue_blocks_whatever_its_count(device: Device, count: int) -> None:
    assert device.read(device.open(), count) is None


def test_an_interrupted_read_returns_no_octets(device: Device) -> None:
    daemon = device.open()
    assert device.read(daemon) is None
    assert device.interrupt(daemon) == b""


def test_after_an_interrupted_read_the_next_one_blocks_again(device: Device) -> None:
    daemon = device.open()
    for _ in range(3):
        assert device.read(daemon) is None
        assert device.interrupt(daemon) == b""


def test_a_blocked_read_is_woken_by_a_message_and_gets_it(device: Device) -> None:
    daemon = device.open()
    assert device.read(daemon) is None
    device.send(b"question")
    assert device.woken == [USER]
    assert seen(device.resume(daemon)) == Seen(1, 0, b"question")


def test_a_message_wakes_its_own_users_daemon_alone(device: Device) -> None:
    daemon, other = device.open(USER), device.open(OTHER_USER)
    assert device.read(daemon) is None
    assert device.read(other) is None
    device.send(identity=OTHER_USER)
    assert device.woken == [OTHER_USER]
    assert device.resume(daemon) is None
    assert seen(device.resume(other)).counter == 1


def test_messages_are_read_in_the_order_in_which_they_were_sent(device: Device) -> None:
    daemon = device.open()
    for number in range(20, 24):
        device.send(b"%d" % number)
    assert [device.next_request(daemon).data for _ in range(4)] == [b"20", b"21", b"22", b"23"]
    assert device.read(daemon) is None


def test_of_concurrent_readers_every_second_returns_nothing_and_the_others_block(
    device: Device,
) -> None:
    daemon = device.open()
    assert [device.read(daemon) for _ in range(5)] == [None, b"", None, b"", None]


def test_any_reader_that_returns_lets_the_next_one_block(device: Device) -> None:
    daemon = device.open()
    assert [device.read(daemon) for _ in range(5)] == [None, b"", None, b"", None]
    assert device.interrupt(daemon) == b""  # the third
    assert device.read(daemon) is None  # a sixth, besides the first and the fifth
    assert [device.interrupt(daemon) for _ in range(3)] == [b"", b"", b""]
    assert device.read(daemon) is None


def test_the_refused_reader_clears_the_flag_of_the_one_inside(device: Device) -> None:
    daemon = device.open()
    assert device.read(daemon) is None
    assert daemon.flags & DaemonFlag.IN_READ
    assert device.read(daemon) == b""
    assert not daemon.flags & DaemonFlag.IN_READ


def test_a_second_reader_returns_nothing_although_a_message_is_there(device: Device) -> None:
    daemon = device.open()
    assert device.read(daemon) is None
    device.send()
    assert device.read(daemon) == b""
    assert seen(device.resume(daemon)).counter == 1


def test_of_blocked_readers_one_gets_the_message_and_the_others_go_on_blocking(
    device: Device,
) -> None:
    daemon = device.open()
    assert [device.read(daemon) for _ in range(3)] == [None, b"", None]
    device.send(b"first")
    assert seen(device.resume(daemon)).data == b"first"
    assert device.resume(daemon) is None
    device.send(b"second")
    assert seen(device.resume(daemon)).data == b"second"


def test_a_reader_that_gets_its_message_lets_the_next_one_block(device: Device) -> None:
    daemon = device.open()
    assert [device.read(daemon) for _ in range(3)] == [None, b"", None]
    device.send()
    assert device.resume(daemon)
    assert device.read(daemon) is None  # besides the one that goes on blocking


def test_a_count_too_small_returns_nothing_and_keeps_the_message(device: Device) -> None:
    daemon = device.open()
    device.send(bytes(38))
    for count in range(52):
        assert device.read(daemon, count) == b""
        assert device.poll(daemon)[0]
    octets = device.read(daemon, 52)
    assert octets is not None
    assert len(octets) == 52


def test_a_count_too_small_ends_a_blocked_read_too(device: Device) -> None:
    daemon = device.open()
    assert device.read(daemon, 51) is None
    device.send(bytes(38))
    assert device.resume(daemon, 51) == b""
    assert len(device.read(daemon, 52) or b"") == 52


def test_a_reader_with_a_count_too_small_lets_the_next_one_in(device: Device) -> None:
    daemon = device.open()
    device.send()
    assert device.read(daemon, 4) == b""
    assert not daemon.flags & DaemonFlag.IN_READ


def test_a_small_message_is_not_read_before_a_large_one_that_came_first(device: Device) -> None:
    daemon = device.open()
    device.send(bytes(100))
    device.send(b"")
    assert device.read(daemon, 14) == b""
    assert device.next_request(daemon).data == bytes(100)
    assert device.next_request(daemon).data == b""


def test_a_message_that_timed_out_unread_leaves_a_packet_of_five_octets(device: Device) -> None:
    daemon = device.open()
    request = device.send()
    device.messaging.time_out(request)
    assert device.read(daemon, 4) == b""
    assert device.read(daemon, ENOUGH) == bytes.fromhex("66 00000001")
    assert device.read(daemon) is None


def test_a_message_that_was_answered_unread_leaves_a_packet_of_five_octets(device: Device) -> None:
    daemon = device.open()
    request = device.send()
    device.answer(daemon, Seen(1, 0))
    assert request.take() == b"answer"
    assert device.read(daemon, 5) == bytes.fromhex("66 00000001")
    assert device.read(daemon) is None


def test_packets_of_five_octets_keep_their_place_between_messages(device: Device) -> None:
    daemon = device.open()
    requests = [device.send(b"%d" % number) for number in range(3)]
    device.messaging.time_out(requests[1])
    device.send(b"3")  # in the message context of the one that timed out
    assert [device.next_request(daemon) for _ in range(4)] == [
        Seen(1, 0, b"0"),
        Seen(2),
        Seen(3, 2, b"2"),
        Seen(4, 1, b"3"),
    ]


def test_an_unread_leftover_never_shows_another_users_message(device: Device) -> None:
    daemon, other = device.open(USER), device.open(OTHER_USER)
    device.messaging.time_out(device.send(identity=USER))
    device.send(b"not for the first user", OTHER_USER)  # in the same message context
    assert device.next_request(daemon) == Seen(1)
    assert device.read(daemon) is None
    assert device.next_request(other) == Seen(2, 0, b"not for the first user")


def test_a_daemon_in_read_may_write(device: Device) -> None:
    daemon = device.open()
    assert device.read(daemon) is None
    assert device.write(daemon, bytes.fromhex("6400000000")) == 5
    assert device.write(daemon, bytes.fromhex("6500000000")) == 5
    with refused(errno.EINVAL):
        device.write(daemon, bytes.fromhex("67 00000001 09 00000000 01000000 78"))
    assert device.read(daemon) == b""  # the first one is still inside
