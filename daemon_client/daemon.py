"""The key daemon as a trio task.

    async with Daemon(path, keys) as daemon:        registered from here on
        await daemon.run()                          until the device says QUIT, or it is cancelled

One task waits for packets; each request has a task of its own, so that a slow key holds nobody up.
System calls and keys are used in worker threads only, so a program may also serve the device that
its daemon opens.
"""

import errno
import logging
import os
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import trio

from daemon_client.device import DaemonError, Device
from daemon_client.keys import RsaKey
from daemon_client.protocol import HELO, QUIT, Answer, Drop, Quit, Task, perform, receive
from daemon_client.threads import GRACE, in_thread

logger = logging.getLogger(__name__)


class Daemon:
    """A key daemon for the calling user, registered during its ``async with`` block.

    path: the device. keys: those it answers with; others' requests get failure packets.
    at_once: how many requests are worked on at a time; by default as many as there are processors.

    Entering raises DeviceOpenError where the device cannot be opened, DaemonError where it does not
    take HELO. Leaving writes QUIT and closes the device. Neither outlasts a cancellation by more
    than a moment, even if the device's server does not answer.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        keys: Iterable[RsaKey],
        *,
        at_once: int | None = None,
    ) -> None:
        self._path = path
        self._keys = {key.signature: key for key in keys}
        self._places = trio.CapacityLimiter(at_once or os.cpu_count() or 1)
        self._device: Device | None = None
        self._has_run = False

    async def __aenter__(self) -> Self:
        if self._device is not None:
            raise RuntimeError("a Daemon can be entered once")
        device = self._device = Device(self._path)
        try:
            await in_thread(device.open)
            await in_thread(lambda: _greet(device))
        except BaseException:
            await self._leave(device)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._device is not None
        await self._leave(self._device)

    async def _leave(self, device: Device) -> None:
        with trio.move_on_after(GRACE, shield=True):
            await in_thread(lambda: device.leave(QUIT))

    async def run(self) -> None:
        """Answer requests until the device says QUIT. To be called once.

        Raises DeviceGoneError when the device goes away, DaemonError when it cannot be read.
        Cancelled, it ends at once; requests that it was working on may remain unanswered.
        """
        if self._device is None or self._has_run:
            raise RuntimeError("run() belongs into the Daemon's async with block, once")
        self._has_run = True
        ended: DaemonError | None = None
        async with trio.open_nursery() as nursery:
            # Kept for later: a nursery would wrap it into a group.
            try:
                await self._serve(self._device, nursery)
            except DaemonError as error:
                ended = error
                nursery.cancel_scope.cancel()
        if ended is not None:
            raise ended

    async def _serve(self, device: Device, nursery: trio.Nursery) -> None:
        while True:
            octets = await in_thread(device.receive, device.wake)
            if octets is None:
                await trio.lowlevel.checkpoint()  # woken by a cancellation: this raises it
                continue
            action = receive(octets)
            match action:
                case Quit():
                    logger.info("the device says QUIT")
                    return
                case Drop():
                    logger.info("dropped: %s", action.why)
                case Task() | Answer():
                    nursery.start_soon(self._answer, device, action)

    async def _answer(self, device: Device, what: Task | Answer) -> None:
        def work() -> None:
            answer = what if isinstance(what, Answer) else perform(what, self._keys)
            _send(device, answer)

        async with self._places:
            await in_thread(work)


def _greet(device: Device) -> None:
    try:
        device.send(HELO)
    except OSError as error:
        raise DaemonError(f"{device.path} does not take HELO: {error.strerror}") from None


def _send(device: Device, answer: Answer) -> None:
    if answer.failure is not None:
        logger.warning("request %d fails: %s", answer.counter, answer.failure)
    try:
        device.send(answer.octets)
    except OSError as error:
        # If the device is gone, whoever waits for packets will see it too.
        if error.errno == errno.EINVAL:
            logger.warning("answer %d came too late: its requester has gone", answer.counter)
        else:
            logger.warning("answer %d was not written: %s", answer.counter, error.strerror)
    else:
        if answer.failure is None:
            logger.debug("request %d is answered", answer.counter)
