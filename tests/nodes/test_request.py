"""control/request: a transaction file."""

import errno
import os
import select

import pytest
import trio

from ecryptfs_cuse.core.messaging import Request
from ecryptfs_cuse.fuse.node import Handle
from ecryptfs_cuse.nodes.request import RequestFile
from tests.kept import kept
from tests.nodes.clock import Kernel, running, with_clock
from tests.nodes.handles import CALLER, OTHER_CALLER, Keyd, refused

WRITABLE = (select.POLLOUT | select.POLLWRNORM, True)
READABLE = (select.POLLIN | select.POLLRDNORM, True)
NOTHING_YET = (0, True)


class Opened:
    """An open request file and the wakes that it gave."""

    def __init__(self, kernel: Kernel, flags: int = os.O_RDWR) -> None:
        self.handle: Handle = RequestFile(kernel.exchange).open(CALLER, flags)
        self.wakes = 0
        self.handle.wake = self.wake

    def wake(self) -> None:
        self.wakes += 1

    def read(self, size: int = 4096) -> bytes | None:
        return self.handle.read(size, 0)

    def write(self, data: bytes) -> int:
        return self.handle.write(data, 0)


@with_clock
async def test_idle_a_read_returns_no_octets_and_the_file_is_writable() -> None:
    file = Opened(Kernel())
    assert file.handle.poll() == WRITABLE
    assert file.read() == b""
    assert file.handle.poll() == WRITABLE


@with_clock
async def test_a_write_sends_the_request_and_a_read_returns_the_answer() -> None:
    kernel = Kernel()
    keyd, file = Keyd(kernel), Opened(kernel)
    assert file.write(b"question") == 8
    assert keyd.next_data() == b"question"
    keyd.answer(b"answer")
    assert file.read() == b"answer"


@with_clock
async def test_waiting_a_read_stays_pending_and_the_file_is_not_ready() -> None:
    kernel = Kernel()
    keyd, file = Keyd(kernel), Opened(kernel)
    file.write(b"question")
    assert file.read() is None
    assert file.handle.poll() == NOTHING_YET
    assert file.wakes == 0
    keyd.next_data()
    keyd.answer(b"answer")
    assert file.wakes == 1
    assert file.handle.resume_read(4096, 0) == b"answer"


@with_clock
async def test_answered_the_file_is_readable_until_the_answer_was_read() -> None:
    kernel = Kernel()
    keyd, file = Keyd(kernel), Opened(kernel)
    file.write(b"question")
    keyd.next_data()
    keyd.answer(b"answer")
    assert file.handle.poll() == READABLE
    file.read()
    assert file.handle.poll() == WRITABLE
    assert file.read() == b""


@with_clock
async def test_a_second_write_before_the_answer_was_read_finds_the_file_busy() -> None:
    kernel = Kernel()
    keyd, file = Keyd(kernel), Opened(kernel)
    file.write(b"first")
    with refused(errno.EBUSY):
        file.write(b"second, while waiting")
    assert keyd.next_data() == b"first"
    keyd.answer(b"answer")
    with refused(errno.EBUSY):
        file.write(b"second, while answered")
    assert file.read(3) == b"ans"
    with refused(errno.EBUSY):
        file.write(b"second, while half read")
    assert file.read() == b"wer"
    file.write(b"second")
    assert keyd.next_data() == b"second"
    assert kernel.messaging.totals.requests == 2


@with_clock
async def test_an_answer_may_be_read_in_pieces() -> None:
    kernel = Kernel()
    keyd, file = Keyd(kernel), Opened(kernel)
    file.write(b"question")
    keyd.next_data()
    keyd.answer(b"answer")
    pieces = []
    while file.handle.poll() == READABLE:
        pieces.append(file.read(4))
    assert pieces == [b"answ", b"er"]


@with_clock
async def test_an_empty_answer_is_an_answer() -> None:
    kernel = Kernel()
    keyd, file = Keyd(kernel), Opened(kernel)
    file.write(b"question")
    keyd.next_data()
    keyd.answer(b"")
    assert file.handle.poll() == READABLE
    assert file.read() == b""
    assert file.handle.poll() == WRITABLE


@with_clock
async def test_several_transactions_follow_one_another_on_one_open_file() -> None:
    kernel = Kernel()
    keyd, file = Keyd(kernel), Opened(kernel)
    for number in range(5):
        file.write(b"question %d" % number)
        assert keyd.next_data() == b"question %d" % number
        keyd.answer(b"answer %d" % number)
        assert file.read() == b"answer %d" % number


@with_clock
async def test_after_a_time_out_a_read_says_so_and_the_file_is_idle() -> None:
    kernel = Kernel(message_wait_timeout=3)
    Keyd(kernel)
    file = Opened(kernel)
    async with running(kernel.exchange):
        file.write(b"question")
        assert file.read() is None
        await trio.sleep(3.5)
    assert file.wakes == 1
    assert file.handle.poll() == READABLE
    with refused(errno.ENOMSG):
        file.handle.resume_read(4096, 0)
    assert file.handle.poll() == WRITABLE
    assert file.read() == b""


def test_with_a_time_out_of_0_the_write_succeeds_and_the_read_says_so() -> None:
    kernel = Kernel(message_wait_timeout=0)
    Keyd(kernel)
    file = Opened(kernel)
    assert file.write(b"question") == 8
    with refused(errno.ENOMSG):
        file.read()


@with_clock
async def test_a_write_is_refused_where_the_kernel_refuses_the_request() -> None:
    kernel = Kernel(message_buf_len=1)
    file, other = Opened(kernel), Opened(kernel)
    with refused(errno.ENOTCONN):
        file.write(b"question")
    Keyd(kernel, OTHER_CALLER)
    with refused(errno.ENOTCONN):
        file.write(b"question")
    keyd = Keyd(kernel)
    other.write(b"takes the only context")
    with refused(errno.ENOMEM):
        file.write(b"question")
    assert file.handle.poll() == WRITABLE
    assert keyd.next_data() == b"takes the only context"


@with_clock
async def test_a_write_of_more_than_a_message_carries_is_refused_and_leaves_the_file_idle() -> None:
    kernel = Kernel()
    Keyd(kernel)
    file = Opened(kernel)
    with refused(errno.EMSGSIZE):
        file.write(bytes(8376))
    assert file.handle.poll() == WRITABLE
    assert file.write(bytes(8375)) == 8375


@with_clock
async def test_the_request_is_that_of_whoever_opened_the_file() -> None:
    kernel = Kernel()
    keyd, other = Keyd(kernel), Keyd(kernel, OTHER_CALLER)
    RequestFile(kernel.exchange).open(OTHER_CALLER, os.O_RDWR).write(b"of the other", 0)
    assert kernel.miscdev.poll(keyd.daemon) == (0, True)
    assert other.next_data() == b"of the other"


@with_clock
async def test_a_signal_ends_a_pending_read_and_keeps_the_request() -> None:
    kernel = Kernel()
    keyd, file = Keyd(kernel), Opened(kernel)
    file.write(b"question")
    assert file.read() is None
    with refused(errno.EINTR):
        file.handle.interrupt_read()
    with refused(errno.EBUSY):
        file.write(b"another")
    keyd.next_data()
    keyd.answer(b"answer")
    assert file.read() == b"answer"


@with_clock
async def test_with_o_nonblock_a_read_that_would_wait_is_refused_and_keeps_the_request() -> None:
    kernel = Kernel()
    keyd, file = Keyd(kernel), Opened(kernel, os.O_RDWR | os.O_NONBLOCK)
    assert file.read() == b""
    file.write(b"question")
    for _ in range(2):
        with refused(errno.EAGAIN):
            file.read()
    keyd.next_data()
    keyd.answer(b"answer")
    assert file.read() == b"answer"


@with_clock
async def test_closing_the_file_abandons_the_request_and_the_daemon_does_not_notice() -> None:
    kernel = Kernel()
    keyd, file = Keyd(kernel), Opened(kernel)
    file.write(b"question")
    file.handle.release()
    assert kernel.messaging.free_contexts == 31
    assert keyd.next_data() == b"question"
    keyd.answer(b"answer")
    assert kernel.messaging.free_contexts == 32
    assert kernel.messaging.totals.responses == 1
    assert file.wakes == 0


@with_clock
async def test_a_request_that_was_abandoned_gives_its_context_back_in_its_time() -> None:
    kernel = Kernel(message_wait_timeout=3)
    Keyd(kernel)
    file = Opened(kernel)
    async with running(kernel.exchange):
        file.write(b"question")
        file.handle.release()
        await trio.sleep(3.5)
    assert kernel.messaging.free_contexts == 32
    assert file.wakes == 0


@with_clock
async def test_files_and_daemons_that_come_and_go_leave_nothing_however_long_the_time_out() -> None:
    kernel = Kernel(message_wait_timeout=1e9)
    for _ in range(200):
        keyd, file = Keyd(kernel), Opened(kernel)
        file.write(b"question")
        kernel.miscdev.release(keyd.daemon)
        file.handle.release()
    assert kept(kernel.exchange)[Request] <= 66
    assert kernel.messaging.free_contexts == 32


@with_clock
async def test_closing_an_idle_or_an_answered_file_is_nothing_special() -> None:
    kernel = Kernel()
    keyd, idle, answered = Keyd(kernel), Opened(kernel), Opened(kernel)
    answered.write(b"question")
    keyd.next_data()
    keyd.answer(b"answer")
    idle.handle.release()
    answered.handle.release()
    assert kernel.messaging.free_contexts == 32


def test_a_user_may_have_a_file_for_each_context_and_1024_besides() -> None:
    kernel = Kernel(message_buf_len=2)
    file = RequestFile(kernel.exchange)
    opened = [file.open(CALLER, os.O_RDWR) for _ in range(1026)]
    with refused(errno.EMFILE):
        file.open(CALLER, os.O_RDWR)
    file.open(OTHER_CALLER, os.O_RDWR).release()
    opened[0].release()
    file.open(CALLER, os.O_RDWR)


def test_offsets_mean_nothing() -> None:
    assert not RequestFile(Kernel().exchange).open(CALLER, os.O_RDWR).seekable


def test_everybody_may_open_the_file_and_shells_may_truncate_it() -> None:
    file = RequestFile(Kernel().exchange)
    assert file.attributes.mode & 0o777 == 0o666
    file.truncate()


@pytest.mark.parametrize("size", [0, 1, 6])
@with_clock
async def test_a_read_returns_no_more_than_was_asked_for(size: int) -> None:
    kernel = Kernel()
    keyd, file = Keyd(kernel), Opened(kernel)
    file.write(b"question")
    keyd.next_data()
    keyd.answer(b"answer")
    assert file.read(size) == b"answer"[:size]
    assert file.read() == b"answer"[size:]
