"""Time without waiting: trio's mock clock jumps to the next deadline when nobody can go on."""

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import ParamSpec

import trio
import trio.testing

from ecryptfs_cuse.core.messaging import Messaging
from ecryptfs_cuse.core.miscdev import Miscdev
from ecryptfs_cuse.nodes.exchange import Exchange

P = ParamSpec("P")


def with_clock(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run an asynchronous test, beginning at the time 0."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        clock = trio.testing.MockClock(autojump_threshold=0)
        trio.run(functools.partial(test, *args, **kwargs), clock=clock)

    return run


class Kernel:
    """The emulated kernel side with an exchange."""

    def __init__(self, message_wait_timeout: float = 3, message_buf_len: int = 32) -> None:
        self.messaging = Messaging(message_buf_len)
        self.miscdev = Miscdev(self.messaging)
        self.exchange = Exchange(self.messaging, message_wait_timeout)


@asynccontextmanager
async def running(exchange: Exchange) -> AsyncIterator[None]:
    """The exchange ends requests during the block."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(exchange.run)
        await trio.testing.wait_all_tasks_blocked()
        yield
        nursery.cancel_scope.cancel()
