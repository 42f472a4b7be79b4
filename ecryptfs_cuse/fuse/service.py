"""A service that runs while a block runs, in a task of its own.

Theory of operation. A program that embeds a service may be interrupted anywhere: trio raises
KeyboardInterrupt in whatever code runs when Ctrl-C comes, or in its main task where that waits,
shielded or not; and scopes of the program may be cancelled at any time. A service that was
interrupted between two of its steps would leave its mount behind, with nobody to answer there.

So the service, its start and its clean-up are one async function, in a task where neither happens:
no scope of the program reaches it, its code is protected against KeyboardInterrupt, and it is never
trio's main task. The block's task does nothing but wait for it, in a nursery, which can be
interrupted but does not end before its tasks have.

Protection is a matter of code, not of tasks: what runs below a function marked with
``enable_ki_protection`` is protected. Each task starts afresh, so each needs ``protected``.
"""

import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Generic, ParamSpec, TypeVar, cast

import trio
from trio.lowlevel import enable_ki_protection

T = TypeVar("T")
P = ParamSpec("P")


class Service(AbstractAsyncContextManager[T, bool], Generic[T]):
    """Runs ``service`` while the block runs.

    It is given a function to call with what the block gets, once it has started; then it waits
    until it is cancelled, and cleans up. What it raises ends the block, and comes out in place of
    what the block raises. What the block raises alone comes out as it is.
    """

    def __init__(self, service: Callable[[Callable[[T], None]], Awaitable[None]]) -> None:
        self._service = service
        self._stop = trio.CancelScope(shield=True)
        self._was_entered = False
        self._started: trio.Event
        self._value: T | None = None
        self._failure: BaseException | None = None

    @enable_ki_protection
    async def __aenter__(self) -> T:
        if self._was_entered:
            raise RuntimeError("a service runs once: make another one")
        self._was_entered = True
        await trio.lowlevel.checkpoint()  # where it is cancelled already, nothing starts
        self._process = os.getpid()
        self._started = trio.Event()
        self._manager = trio.open_nursery(strict_exception_groups=True)
        self._nursery = await self._manager.__aenter__()
        self._nursery.start_soon(self._run)
        try:
            await self._started.wait()
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        if self._failure is not None:
            await self.__aexit__(None, None, None)
        return cast(T, self._value)

    @enable_ki_protection
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if os.getpid() != self._process:
            return False  # a forked child leaves the block: the service is its parent's
        self._stop.cancel()
        failure = None
        try:
            # Not told of the block's error, it neither wraps it nor swallows it.
            await self._manager.__aexit__(None, None, None)
        except BaseExceptionGroup as group:
            (failure,) = group.exceptions  # a KeyboardInterrupt while we waited: nothing else
        failure = failure or self._failure
        if failure is not None:
            context = failure.__context__ or _without_cancellation(error)
            try:
                raise failure
            finally:
                failure.__context__ = context
        return False

    @enable_ki_protection
    async def _run(self) -> None:
        try:
            with self._stop:
                await self._service(self._start)
        except BaseException as error:
            self._failure = _alone(error)
            # In this order: whoever waits for the start is not cancelled.
            self._started.set()
            self._nursery.cancel_scope.cancel()

    def _start(self, value: T) -> None:
        self._value = value
        self._started.set()


@enable_ki_protection
async def protected(function: Callable[P, Awaitable[None]], *args: P.args, **kw: P.kwargs) -> None:
    """Call ``function``; started as a task, it is protected against KeyboardInterrupt."""
    await function(*args, **kw)


async def in_thread(function: Callable[..., T], *args: object) -> T:
    """Call ``function`` in a thread that need not wait for the program's threads to be done."""
    return await trio.to_thread.run_sync(function, *args, limiter=trio.CapacityLimiter(1))


def _alone(error: BaseException) -> BaseException:
    """What is in groups of one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        (error,) = error.exceptions
    return error


def _without_cancellation(error: BaseException | None) -> BaseException | None:
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1]
    return None if isinstance(error, trio.Cancelled) else error
