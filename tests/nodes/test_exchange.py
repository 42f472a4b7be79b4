"""The exchange: requests end when their time is over."""

import errno

import pytest
import trio

from ecryptfs_cuse.core.errors import DeviceError
from ecryptfs_cuse.core.messaging import Daemon, Identity, Request
from ecryptfs_cuse.wire.packet import Message
from tests.kept import kept
from tests.nodes.clock import Kernel, running, with_clock

USER = Identity(1000, 1)


class Requester:
    """Sends requests and notes which ended when."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.ended: list[tuple[str, float]] = []
        self.daemon: Daemon = kernel.miscdev.open(USER, lambda: None)

    def send(self, name: str, timeout: float | None = None) -> Request:
        start = trio.current_time()
        return self.kernel.exchange.send(
            USER,
            name.encode(),
            lambda: self.ended.append((name, trio.current_time() - start)),
            timeout,
        )

    def answer(self, request: Request) -> None:
        assert request.context is not None
        message = Message(request.context.index, b"answer")
        self.kernel.messaging.process_response(self.daemon, request.counter, message)


def outcome(request: Request) -> bytes | int | None:
    """What the requester gets: the answer, or an errno."""
    try:
        return request.take()
    except DeviceError as error:
        return error.errno


@with_clock
async def test_a_request_that_nobody_answers_ends_after_the_message_wait_timeout() -> None:
    requester = Requester(Kernel(message_wait_timeout=3))
    async with running(requester.kernel.exchange):
        request = requester.send("only")
        await trio.sleep(2.9)
        assert requester.ended == []
        await trio.sleep(0.2)
        assert requester.ended == [("only", 3)]
    assert outcome(request) == errno.ENOMSG


@with_clock
async def test_requests_end_in_the_order_in_which_their_time_is_over() -> None:
    requester = Requester(Kernel())
    async with running(requester.kernel.exchange):
        for name, timeout in (("five", 5), ("one", 1), ("four", 4), ("two", 2), ("three", None)):
            requester.send(name, timeout)
        await trio.sleep(10)
    assert requester.ended == [("one", 1), ("two", 2), ("three", 3), ("four", 4), ("five", 5)]


@with_clock
async def test_requests_whose_time_is_over_at_once_end_in_the_order_of_sending() -> None:
    requester = Requester(Kernel())
    async with running(requester.kernel.exchange):
        for name in "abcd":
            requester.send(name, 2)
        await trio.sleep(2.5)
    assert requester.ended == [(name, 2) for name in "abcd"]


@with_clock
async def test_a_shorter_time_out_that_comes_later_wakes_first() -> None:
    requester = Requester(Kernel())
    async with running(requester.kernel.exchange):
        requester.send("long", 5)
        await trio.sleep(1)
        requester.send("short", 1)
        await trio.sleep(2)
        assert requester.ended == [("short", 1)]
        await trio.sleep(3)
    assert requester.ended == [("short", 1), ("long", 5)]


@with_clock
async def test_a_longer_time_out_that_comes_later_does_not_delay_the_others() -> None:
    requester = Requester(Kernel())
    async with running(requester.kernel.exchange):
        requester.send("short", 2)
        await trio.sleep(1)
        requester.send("long", 60)
        await trio.sleep(1.5)
        assert requester.ended == [("short", 2)]


@pytest.mark.parametrize("timeout", [0, -1, -0.5])
def test_with_a_time_out_of_0_or_less_a_request_ends_at_once(timeout: float) -> None:
    kernel = Kernel(message_wait_timeout=timeout)
    daemon = kernel.miscdev.open(USER, lambda: None)
    ended: list[int] = []
    request = kernel.exchange.send(USER, b"question", lambda: ended.append(1))
    assert ended == [1]
    assert outcome(request) == errno.ENOMSG
    assert kernel.miscdev.poll(daemon) == (0x41, True)
    assert kernel.miscdev.read(daemon, 4096) == bytes.fromhex("66 00000001")
    assert kernel.messaging.free_contexts == 32


def test_the_time_out_of_one_request_may_be_0_alone() -> None:
    kernel = Kernel(message_wait_timeout=3)
    kernel.miscdev.open(USER, lambda: None)
    assert outcome(kernel.exchange.send(USER, b"", lambda: None, 0)) == errno.ENOMSG


@with_clock
async def test_an_answer_in_time_wins_and_its_deadline_passes_unnoticed() -> None:
    requester = Requester(Kernel())
    async with running(requester.kernel.exchange):
        request = requester.send("answered", 3)
        await trio.sleep(2.5)
        requester.answer(request)
        later = requester.send("later", 3)  # in the same message context
        await trio.sleep(1)
        assert not later.is_finished
        await trio.sleep(5)
    assert requester.ended == [("answered", 2.5), ("later", 3)]
    assert outcome(request) == b"answer"
    assert requester.kernel.messaging.totals.timeouts == 1


@with_clock
async def test_a_request_whose_message_a_close_dropped_still_ends_in_its_time() -> None:
    requester = Requester(Kernel())
    async with running(requester.kernel.exchange):
        request = requester.send("dropped")
        requester.kernel.miscdev.release(requester.daemon)
        await trio.sleep(2.9)
        assert requester.ended == []
        await trio.sleep(1)
    assert requester.ended == [("dropped", 3)]
    assert outcome(request) == errno.ENOMSG


@with_clock
async def test_an_abandoned_request_gives_its_context_back_in_its_time() -> None:
    requester = Requester(Kernel())
    async with running(requester.kernel.exchange):
        requester.kernel.exchange.abandon(requester.send("abandoned"))
        await trio.sleep(2.9)
        assert requester.kernel.messaging.free_contexts == 31
        await trio.sleep(0.2)
        assert requester.kernel.messaging.free_contexts == 32
    assert requester.ended == []


@with_clock
async def test_a_request_sent_before_the_exchange_runs_ends_in_its_time_too() -> None:
    requester = Requester(Kernel())
    requester.send("early", 1)
    await trio.sleep(0.5)
    async with running(requester.kernel.exchange):
        await trio.sleep(1)
    assert requester.ended == [("early", 1)]


@with_clock
async def test_a_request_may_be_sent_by_whoever_is_told_of_a_time_out() -> None:
    requester = Requester(Kernel())
    async with running(requester.kernel.exchange):
        requester.kernel.exchange.send(USER, b"", lambda: void(requester.send("second", 1)), 1)
        await trio.sleep(1.5)
        assert requester.ended == []
        await trio.sleep(1)
    assert requester.ended == [("second", 1)]


def void(_: object) -> None:
    """Forget a value."""


@with_clock
async def test_a_request_without_end_waits_for_ever() -> None:
    requester = Requester(Kernel(message_wait_timeout=float("inf")))
    async with running(requester.kernel.exchange):
        request = requester.send("patient")
        await trio.sleep(1e9)
        assert not request.is_finished
        requester.answer(request)
    assert outcome(request) == b"answer"


@with_clock
async def test_finished_requests_do_not_pile_up_behind_one_with_a_long_time_out() -> None:
    requester = Requester(Kernel(message_wait_timeout=1e9, message_buf_len=200))
    async with running(requester.kernel.exchange):
        requester.send("patient")
        waiting: list[Request] = []
        for _ in range(2000):
            finished = requester.send("quick")
            requester.answer(finished)
            if len(waiting) < 150:
                waiting.append(requester.send("waiting", 5))
        assert kept(requester.kernel.exchange)[Request] <= 64 + 2 * (len(waiting) + 1)
        await trio.sleep(6)
        assert all(request.is_finished for request in waiting)
    assert [end for end in requester.ended if end[0] == "waiting"] == 150 * [("waiting", 5)]


@with_clock
async def test_abandoned_requests_do_not_pile_up_as_daemons_come_and_go() -> None:
    kernel = Kernel(message_wait_timeout=1e9)
    async with running(kernel.exchange):
        for _ in range(1000):
            daemon = kernel.miscdev.open(USER, lambda: None)
            before, after = (
                kernel.exchange.send(USER, b"question", lambda: None) for _ in range(2)
            )
            kernel.exchange.abandon(before)
            kernel.miscdev.release(daemon)
            kernel.exchange.abandon(after)
    assert kept(kernel.exchange)[Request] <= 64 + 2
    assert kernel.messaging.free_contexts == 32


def test_what_messaging_refuses_the_exchange_refuses() -> None:
    kernel = Kernel(message_buf_len=0)
    with pytest.raises(DeviceError) as caught:
        kernel.exchange.send(USER, b"", lambda: None)
    assert caught.value.errno == errno.ENOTCONN
    kernel.miscdev.open(USER, lambda: None)
    with pytest.raises(DeviceError) as caught:
        kernel.exchange.send(USER, b"", lambda: None)
    assert caught.value.errno == errno.ENOMEM
