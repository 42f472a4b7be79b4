"""Tests that are trio tasks."""

import functools
from collections.abc import Awaitable, Callable
from typing import ParamSpec

import trio

from tests.client import PATIENCE

P = ParamSpec("P")


def in_trio(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run an async test, and fail it when it takes too long."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def limited() -> None:
            with trio.fail_after(PATIENCE):
                await test(*args, **kwargs)

        trio.run(limited)

    return run
