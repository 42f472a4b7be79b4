"""The channel by itself: requests as no kernel sends them, and what no kernel should do."""

import errno
import os
from collections.abc import Iterator
from struct import pack, unpack_from

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecryptfs_cuse.fuse import abi, channel
from ecryptfs_cuse.fuse.abi import Opcode
from tests.device.traffic import HELO, response_to
from tests.fuse.any_requests import check_requests
from tests.fuse.kernel import LOOKUP, Complaints, Kernel

USER = 1000


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    """A kernel whose channel logs no error, unless the test takes it from ``complaints``."""
    complaints = Complaints()
    channel.logger.addHandler(complaints)
    try:
        with Kernel() as started:
            started.complaints = complaints.texts
            yield started
    finally:
        channel.logger.removeHandler(complaints)
    assert complaints.texts == []


def check_service(kernel: Kernel, uid: int = 2000) -> None:
    """A daemon opens, waits, is given its message, answers and goes: nothing is left of it."""
    file = kernel.open_device(uid)
    assert kernel.answer(kernel.write(file, HELO)) == (0, abi.WRITE_OUT.pack(len(HELO), 0))
    reading = kernel.read(file)
    assert kernel.answer(reading) is None
    kernel.ask(uid, b"question")
    answered = kernel.answer(reading)
    assert answered is not None
    assert b"question" in answered[1]
    response = response_to(answered[1], b"answer")
    assert kernel.answer(kernel.write(file, response)) == (0, abi.WRITE_OUT.pack(len(response), 0))
    assert kernel.answer(kernel.release(file)) == (0, b"")


def test_a_read_waits_for_a_message_and_an_interrupt_ends_it_with_no_octets(kernel: Kernel) -> None:
    file = kernel.open_device(USER)
    reading = kernel.read(file)
    assert kernel.answer(reading) is None
    kernel.interrupt(reading)
    assert kernel.answer(reading) == (0, b"")
    kernel.interrupt(reading)  # once more: too late
    kernel.interrupt(123_456)  # of nothing
    check_service(kernel)


@pytest.mark.parametrize(
    ("flags", "mode"),
    [(0, 0), (0, os.O_DIRECT), (abi.READ_LOCKOWNER, os.O_DIRECT)],
    ids=["the page cache's", "the page cache's of a direct file", "an asynchronous one"],
)
def test_a_read_that_is_not_a_processs_own_is_refused_at_once(
    kernel: Kernel, flags: int, mode: int
) -> None:
    file = kernel.open_device(USER)
    kernel.ask(USER, b"question")
    assert kernel.answer(kernel.read(file, flags=flags, mode=mode)) == (-errno.EINVAL, b"")
    answered = kernel.answer(kernel.read(file))
    assert answered is not None
    assert b"question" in answered[1]


def test_a_release_ends_the_reads_that_still_wait(kernel: Kernel) -> None:
    file = kernel.open_device(USER)
    reading = [kernel.read(file) for _ in range(5)]
    released = kernel.release(file)
    assert [kernel.answer(unique) for unique in (*reading, released)] == [(0, b"")] * 6
    assert list(kernel.messaging.daemons) == []
    kernel.interrupt(reading[0])
    check_service(kernel)


def test_readers_behind_one_that_finds_nothing_are_not_asked(kernel: Kernel) -> None:
    file = kernel.open_device(USER)
    readers = [kernel.read(file) for _ in range(7)]
    waiting = [unique for unique in readers if kernel.answer(unique) is None]
    assert len(waiting) == 4  # each second one is let in
    kernel.ask(USER, b"question")
    assert [unique for unique in waiting if kernel.answer(unique) is None] == waiting[1:]
    kernel.release(file)


@pytest.mark.parametrize("opcode", [Opcode.READ, Opcode.WRITE, Opcode.POLL, Opcode.RELEASE])
def test_a_file_that_is_not_open_is_a_bad_descriptor(kernel: Kernel, opcode: Opcode) -> None:
    body = pack("=QQIIQII", 99, 0, 0, abi.READ_LOCKOWNER, 0, 0, 0)
    assert kernel.answer(kernel.send(opcode, body)) == (-errno.EBADF, b"")
    check_service(kernel)


@pytest.mark.parametrize("opcode", [Opcode.READ, Opcode.WRITE, Opcode.POLL, Opcode.RELEASE])
@pytest.mark.parametrize("size", [0, 7])
def test_a_request_without_its_body_is_refused_and_reads_nothing_of_the_one_before(
    kernel: Kernel, opcode: Opcode, size: int
) -> None:
    file = kernel.open_device(USER)
    kernel.write(file, HELO)
    assert kernel.answer(kernel.send(opcode, bytes(size))) == (-errno.EINVAL, b"")
    assert kernel.answer(kernel.release(file)) == (0, b"")


def test_a_write_of_no_octets_writes_none(kernel: Kernel) -> None:
    file = kernel.open_device(USER)
    assert kernel.answer(kernel.write(file, b"")) == (0, abi.WRITE_OUT.pack(0, 0))


@pytest.mark.parametrize("length", [0, 4, 6, 1 << 20, 0xFFFFFFFF])
def test_a_write_of_another_length_than_it_says_is_refused(kernel: Kernel, length: int) -> None:
    file = kernel.open_device(USER)
    assert kernel.answer(kernel.write(file, HELO, length)) == (-errno.EINVAL, b"")
    check_service(kernel)


def test_what_was_written_does_not_stay_in_the_buffer(kernel: Kernel) -> None:
    file = kernel.open_device(USER)
    for length in (None, 3):
        kernel.write(file, b"a secret" * 20, length)
        assert b"secret" not in bytes(kernel.channel._requests)


@pytest.mark.parametrize(
    "octets",
    [bytes(1), bytes(15), pack("=IIQ", 16, 15, 2), pack("=IIQ24x", 41, 15, 2), bytes(40)],
    ids=["an octet", "15", "a header's beginning", "longer than it is", "zeros"],
)
def test_what_is_no_request_is_passed_over(kernel: Kernel, octets: bytes) -> None:
    kernel.post_octets(octets)
    kernel.serve()
    assert kernel.complaints == [f"not a request: {len(octets)} bytes"]
    kernel.complaints.clear()
    check_service(kernel)


@pytest.mark.parametrize("opcode", [Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.NOTIFY_REPLY])
def test_what_gets_no_reply_is_not_passed_on(kernel: Kernel, opcode: Opcode) -> None:
    for _ in range(200):
        kernel.send(opcode, bytes(16))
    assert kernel.refuse_forwarded() == 0
    assert kernel.replies == {}


def test_more_than_the_library_may_hold_waits_for_its_turn(kernel: Kernel) -> None:
    uniques = [kernel.send(LOOKUP, b"name\0") for _ in range(1000)]
    check_service(kernel)
    assert kernel.refuse_forwarded() == 1000
    assert {kernel.answer(unique) for unique in uniques} == {(-errno.ENOSYS, b"")}


def test_large_requests_wait_until_the_socket_has_room(kernel: Kernel) -> None:
    uniques = [kernel.send(LOOKUP, bytes(16_000)) for _ in range(300)]
    check_service(kernel)
    assert kernel.refuse_forwarded() == 300
    assert {kernel.answer(unique) for unique in uniques} == {(-errno.ENOSYS, b"")}


def test_a_request_that_has_not_been_passed_on_yet_can_be_interrupted(kernel: Kernel) -> None:
    uniques = [kernel.send(LOOKUP, b"name\0") for _ in range(100)]
    for unique in uniques:
        kernel.interrupt(unique)
    passed_on = kernel.refuse_forwarded()
    assert 0 < passed_on < 100
    answers = [kernel.answer(unique) for unique in uniques]
    assert answers == [(-errno.ENOSYS, b"")] * passed_on + [(-errno.EINTR, b"")] * (100 - passed_on)


def test_what_has_an_answer_is_not_passed_on(kernel: Kernel) -> None:
    def answer(sender: abi.Sender, body: memoryview) -> bytes:
        if not body:
            raise OSError(errno.ENOENT, "no name")
        return bytes([sender.uid]) + body

    kernel.channel.answers = {LOOKUP: answer}
    assert kernel.answer(kernel.send(LOOKUP, b"name\0")) == (0, b"\0name\0")
    assert kernel.answer(kernel.send(LOOKUP, b"")) == (-errno.ENOENT, b"")
    assert kernel.refuse_forwarded() == 0


def test_a_notification_of_the_librarys_is_passed_back_and_is_no_reply(kernel: Kernel) -> None:
    uniques = [kernel.send(LOOKUP, b"name\0") for _ in range(100)]
    for _ in range(100):
        kernel.channel.library.send(abi.OUT_HEADER.pack(abi.OUT_HEADER.size, 2, 0))
        assert kernel.channel.take_reply()
    assert kernel.refuse_forwarded() == 100
    assert {kernel.answer(unique) for unique in uniques} == {(-errno.ENOSYS, b"")}
    assert kernel.replies[0] == [(2, b"")] * 100


def test_after_the_librarys_end_its_requests_fail_and_the_device_goes_on(kernel: Kernel) -> None:
    held = [kernel.send(LOOKUP, b"name\0") for _ in range(3)]
    kernel.channel.library.close()
    assert not kernel.channel.take_reply()
    later = kernel.send(LOOKUP, b"name\0")
    assert {kernel.answer(unique) for unique in (*held, later)} == {(-errno.EIO, b"")}
    check_service(kernel)
    assert kernel.complaints[0] == "the library has ended"
    kernel.complaints.clear()


@pytest.mark.parametrize(
    "error", [RuntimeError("surprise"), OSError("no number"), OSError(512, "ERESTARTSYS")], ids=str
)
def test_whatever_a_handle_raises_only_its_own_request_fails(
    kernel: Kernel, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = kernel.open_device(USER)
    reading, handle = kernel.read(file), kernel.channel._files[file].handle

    def fail(*_arguments: object) -> None:
        raise error

    for method in ("read", "resume_read", "interrupt_read", "write", "poll"):
        monkeypatch.setattr(handle, method, fail)
    kernel.ask(USER, b"question")
    failed = (reading, kernel.read(file), kernel.write(file, HELO), kernel.poll(file))
    assert {kernel.answer(unique) for unique in failed} == {(-errno.EIO, b"")}
    monkeypatch.setattr(handle, "release", fail)
    assert kernel.answer(kernel.release(file)) == (-errno.EIO, b"")
    check_service(kernel)
    assert set(kernel.complaints) == {"a handle failed"}
    kernel.complaints.clear()


class Faults:
    """A system call of the channel's that fails with these errnos first; None lets one through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, *numbers: int | None) -> None:
        call = getattr(os, name)
        self.left = list(numbers)

        def faulty(*arguments: object) -> object:
            number = self.left.pop(0) if self.left else None
            if number is not None:
                raise OSError(number, os.strerror(number))
            return call(*arguments)

        monkeypatch.setattr(os, name, faulty)


@pytest.mark.parametrize("number", [errno.EINTR, errno.ENOENT, errno.EAGAIN])
def test_a_read_of_the_device_that_fails_for_a_moment_loses_no_request(
    kernel: Kernel, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = kernel.open_device(USER)
    reading = kernel.read(file)
    faults = Faults(monkeypatch, "readv", *[number] * 5)
    kernel.interrupt(reading)
    assert faults.left == []
    assert kernel.answer(reading) == (0, b"")
    check_service(kernel)


@pytest.mark.parametrize("number", [errno.ENODEV, errno.ECONNABORTED, errno.EPERM, errno.EIO])
def test_a_connection_that_is_over_ends_the_channel(
    kernel: Kernel, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = kernel.open_device(USER)
    kernel.read(file)
    Faults(monkeypatch, "readv", number)
    assert not kernel.channel.serve_burst()
    if number in (errno.EPERM, errno.EIO):  # which no kernel gives to who has mounted
        assert kernel.complaints == [f"cannot read requests from the kernel: {os.strerror(number)}"]
        kernel.complaints.clear()
    kernel.channel.close()
    assert list(kernel.messaging.daemons) == []


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV, errno.EPERM, errno.EINVAL])
def test_a_reply_that_is_refused_concerns_nobody_else(
    kernel: Kernel, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = kernel.open_device(USER)
    readers = [kernel.read(file) for _ in range(3)]
    assert [kernel.answer(unique) for unique in readers] == [None, (0, b""), None]
    Faults(monkeypatch, "writev", number)
    kernel.interrupt(readers[0])
    assert kernel.answer(readers[0]) is None
    if number in (errno.EPERM, errno.EINVAL):
        assert kernel.complaints == [f"the kernel refused a reply: {os.strerror(number)}"]
        kernel.complaints.clear()
    kernel.interrupt(readers[2])
    assert kernel.answer(readers[2]) == (0, b"")
    assert kernel.channel._reading == {}
    kernel.release(file)
    check_service(kernel)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=90))))
def test_whatever_is_sent_each_request_gets_one_reply(sent: list[tuple[int, bytes]]) -> None:
    check_requests(b"".join(bytes([kind, len(body)]) + body for kind, body in sent))


def test_a_poller_is_woken_by_each_message_until_the_file_is_closed(kernel: Kernel) -> None:
    file = kernel.open_device(USER)
    assert kernel.answer(kernel.poll(file, kh=7)) == (0, abi.POLL_OUT.pack(0, 0))
    for _ in range(2):
        kernel.ask(USER, b"question")
    assert [unpack_from("=Q", data)[0] for _, data in kernel.replies[0]] == [7, 7]
    kernel.release(file)
