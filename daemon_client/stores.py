"""The key stores at work: how many requests each is asked to do at a time.

Requests for keys of one store take turns with each other, so a slow store delays nobody else. A
place in a store is free again when the store has done its work, not when somebody has stopped
waiting for it: a store that hangs holds some threads, and never more.
"""

from collections import defaultdict
from collections.abc import Callable

import trio

from daemon_client.threads import in_thread


class Stores:
    """at_once: the most calls that one store has at a time."""

    def __init__(self, at_once: int) -> None:
        self._places: dict[str, trio.CapacityLimiter] = defaultdict(
            lambda: trio.CapacityLimiter(at_once)
        )

    async def call(self, store: str, function: Callable[[], None], deadline: float) -> None:
        """Call ``function`` in a thread when ``store`` has a place for it.

        deadline: on trio's clock. Raises trio.TooSlowError when it has passed before the call was
        made or has returned; it may then still be under way.
        """
        places, call = self._places[store], object()
        try:
            places.acquire_on_behalf_of_nowait(call)
        except trio.WouldBlock:
            with trio.fail_at(deadline):
                await places.acquire_on_behalf_of(call)
        await in_thread(
            function, deadline=deadline, at_return=lambda: places.release_on_behalf_of(call)
        )
