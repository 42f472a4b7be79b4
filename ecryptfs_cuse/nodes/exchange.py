"""Requests with a clock: what core/messaging.py leaves to whoever has one."""

import math
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count

import trio

from ecryptfs_cuse.core.messaging import Identity, Messaging, Request

_FEW = 64
"""So many finished requests do no harm."""


class Exchange:
    """Sends requests and ends those that wait too long.

    ``message_wait_timeout`` is in seconds; a request with a time-out of 0 or less ends at once.
    """

    def __init__(self, messaging: Messaging, message_wait_timeout: float) -> None:
        self._messaging = messaging
        self._timeout = message_wait_timeout
        # A heap. Finished requests stay in here for a while: see _compact.
        self._deadlines: list[tuple[float, int, Request]] = []
        self._most = _FEW
        self._serial = count()
        self._earlier = trio.Event()
        self._alarm = math.inf

    def send(
        self,
        identity: Identity,
        data: bytes,
        finished: Callable[[], None],
        timeout: float | None = None,
    ) -> Request:
        """Like Messaging.send_message, and the request is over after ``timeout`` seconds at most.

        Raises what send_message raises.
        """
        request = self._messaging.send_message(identity, data, finished)
        timeout = self._timeout if timeout is None else timeout
        if not timeout > 0:  # not a number is no time either
            self._messaging.time_out(request)
        elif not request.is_finished:
            deadline = trio.current_time() + timeout
            heappush(self._deadlines, (deadline, next(self._serial), request))
            self._compact()
            if deadline < self._alarm:
                self._earlier.set()
        return request

    @property
    def requests_max(self) -> int:
        """How many requests can wait at a time."""
        return len(self._messaging.contexts)

    def abandon(self, request: Request) -> None:
        """Nobody waits for the request any more; it ends as if somebody did."""
        self._messaging.abandon(request)

    async def run(self) -> None:
        """End requests as their time comes, for ever."""
        while True:
            self._earlier = trio.Event()
            while self._deadlines and self._deadlines[0][2].is_finished:
                heappop(self._deadlines)
            self._alarm = self._deadlines[0][0] if self._deadlines else math.inf
            with trio.move_on_at(self._alarm):
                await self._earlier.wait()
            now = trio.current_time()
            while self._deadlines and self._deadlines[0][0] <= now:
                self._messaging.time_out(heappop(self._deadlines)[2])

    def _compact(self) -> None:
        """Throw out what is finished, once that may be half of all, so that it costs little."""
        if len(self._deadlines) > self._most:
            self._deadlines = [each for each in self._deadlines if not each[2].is_finished]
            heapify(self._deadlines)
            self._most = max(_FEW, 2 * len(self._deadlines))
