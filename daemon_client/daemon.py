"""The key daemon as a trio task.

    async with Daemon(path, keys) as daemon:        registered from here on
        await daemon.run()                          until the device says QUIT, or it is cancelled

One task waits for packets; each request has a task of its own, and is answered when it is done, in
no order. Whatever has been read is answered once: by what the key gave, or by a failure packet when
the deadline passes or the daemon stops. System calls on the device and keys are used in worker
threads only, so a program may also serve the device that its daemon opens.
"""

import errno
import logging
import os
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Protocol, Self

import trio

from daemon_client.device import DaemonError, Device
from daemon_client.key import Key, KeyOpenError
from daemon_client.protocol import HELO, QUIT, Answer, Drop, Quit, Task, perform, receive, refuse
from daemon_client.stores import Stores
from daemon_client.threads import GRACE, in_thread

logger = logging.getLogger(__name__)

DEADLINE = 2.5
"""Seconds from reading a request to its answer. The kernel gives up 3 after it was raised."""

AT_ONCE = max(4, os.cpu_count() or 1)
"""Requests that one key store works on at a time."""

UNDER_WAY_MAX = 256
"""Requests that have been read and not answered. The kernel by itself allows 32 of all users'."""


class KeySource(Protocol):
    """Where a daemon finds keys."""

    def find(self, signature: str) -> Key | None:
        """The key of that signature, at once: opening it may wait until it is used.

        Raises KeyOpenError where there is one that cannot be used.
        """


class Daemon:
    """A key daemon for the calling user, registered during its ``async with`` block.

    path: the device. keys: those it answers with; others' requests get failure packets.
    deadline: seconds after which a request that was read fails.
    at_once: how many requests each key store works on at a time.

    Entering raises DeviceOpenError where the device cannot be opened, DaemonError where it does not
    take HELO. Leaving writes QUIT and closes the device. Neither outlasts a cancellation by more
    than a moment, even if the device's server does not answer.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        keys: KeySource | Iterable[Key],
        *,
        deadline: float = DEADLINE,
        at_once: int = AT_ONCE,
    ) -> None:
        self._path = path
        self._keys = _TheseKeys(keys) if isinstance(keys, Iterable) else keys
        self._deadline = deadline
        self._stores = Stores(at_once)
        self._under_way = 0
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
        Cancelled, it leaves what it is working on a moment to be done, and fails the rest.
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
        """Start what each packet asks for, until the device says QUIT."""
        token = trio.lowlevel.current_trio_token()
        is_over = False

        def start(action: Task | Answer) -> None:
            if is_over:  # a read that came back when nobody waited for it any more
                return
            if isinstance(action, Answer):
                nursery.start_soon(self._send, device, action)
            else:
                # Counted here: the task that is started runs later.
                self._under_way += 1
                deadline = trio.current_time() + self._deadline
                nursery.start_soon(self._answer, device, action, deadline)

        def read() -> None:
            # One call for all packets: to give each to a thread of its own takes longer.
            while (octets := device.receive()) is not None:
                match receive(octets):
                    case Quit():
                        logger.info("the device says QUIT")
                        return
                    case Drop(why):
                        logger.info("dropped: %s", why)
                    case action:
                        token.run_sync_soon(start, action)

        try:
            await in_thread(read, device.wake)
            await trio.lowlevel.checkpoint()  # woken by a cancellation: this raises it
        finally:
            is_over = True

    async def _answer(self, device: Device, task: Task, deadline: float) -> None:
        try:
            key = self._key(task)
            if isinstance(key, Answer):
                await self._send(device, key)
            else:
                await self._use(device, task, key, deadline)
        finally:
            self._under_way -= 1

    def _key(self, task: Task) -> Key | Answer:
        """The key that a request asks for, or the answer that there is none."""
        if self._under_way > UNDER_WAY_MAX:
            return refuse(task, f"{UNDER_WAY_MAX} requests are under way already")
        try:
            key = self._keys.find(task.request.signature)
        except KeyOpenError as error:
            return refuse(task, str(error))
        # repr, because the signature may be any ASCII characters.
        return key or refuse(task, f"there is no key {task.request.signature!r}")

    async def _use(self, device: Device, task: Task, key: Key, deadline: float) -> None:
        """Answer with a key; or without it, if that takes too long."""
        right_to_answer = threading.Lock()  # taken once, by who answers

        def work() -> None:
            if right_to_answer.locked():  # it has waited too long for its place
                return
            answer = perform(task, key)
            if right_to_answer.acquire(blocking=False):
                _send(device, answer)

        why = "the daemon stops"
        try:
            await self._stores.call(key.store, work, deadline)
        except trio.TooSlowError:
            why = f"the key store has not done it within {self._deadline:g} s"
        finally:
            if right_to_answer.acquire(blocking=False):
                with trio.move_on_after(GRACE, shield=True):
                    await self._send(device, refuse(task, why))

    async def _send(self, device: Device, answer: Answer) -> None:
        await in_thread(lambda: _send(device, answer))


class _TheseKeys:
    """Keys that are all known."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = {key.signature: key for key in keys}

    def find(self, signature: str) -> Key | None:
        return self._keys.get(signature)


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
