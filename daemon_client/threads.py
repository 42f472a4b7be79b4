"""Calls that may block, in worker threads, for tasks that must end at once when cancelled.

A server may answer a daemon's system calls from the very thread that the daemon's tasks run in, so
none of them may be made there. And a system call on a device whose server no longer answers does
not return, nor does a key store that hangs, so nobody may wait for them for ever.
"""

import contextlib
import math
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import trio

T = TypeVar("T")

GRACE = 1.0
"""Seconds that a cancelled caller leaves the call to return by itself."""


async def in_thread(
    function: Callable[[], T],
    interrupt: Callable[[], object] | None = None,
    *,
    deadline: float = math.inf,
    at_return: Callable[[], object] | None = None,
) -> T:
    """Call ``function`` in a worker thread: what it returns, or raises.

    Cancelled, it calls ``interrupt``, which should make ``function`` return, and waits GRACE
    seconds. If ``function`` has returned by then its result counts, and the caller's next
    checkpoint is cancelled; otherwise its thread is left to itself and its result is lost.

    deadline: on trio's clock. When it has passed the thread is left to itself at once. Raises
    trio.TooSlowError.
    at_return: called in trio's thread when ``function`` has returned, whoever still waits for it.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    token = trio.lowlevel.current_trio_token()
    returned = trio.Event()
    result: Future[T] = Future()

    def note_return() -> None:
        returned.set()
        if at_return is not None:
            at_return()

    def work() -> None:
        try:
            result.set_result(function())
        except BaseException as error:
            result.set_exception(error)
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(note_return)

    # Not trio.to_thread.run_sync: cancelled, it either waits for the thread for ever or not at all.
    trio.lowlevel.start_thread_soon(work, lambda _: None)
    try:
        with trio.move_on_at(deadline):
            await returned.wait()
    except trio.Cancelled:
        if interrupt is not None:
            interrupt()
        with trio.move_on_after(GRACE, shield=True):
            await returned.wait()
        if returned.is_set():
            with contextlib.suppress(Exception):
                return result.result()
        raise
    if not returned.is_set():
        raise trio.TooSlowError
    return result.result()
