"""The daemon as a service: signals, a device that comes and goes, keys that change.

    SIGTERM, SIGINT     stop: QUIT is written, exit code 0
    SIGHUP              open the keys of the configuration and of the directory anew; if any of
                        them is wrong, keep the old ones. Other settings wait for a restart.

Where the configuration says so, it waits for a device that is not there, and opens it again when it
has gone, with a growing pause between tries.
"""

import logging
import signal
from collections.abc import AsyncIterator, Callable

import click
import trio

from daemon_client import notify
from daemon_client.daemon import Daemon
from daemon_client.device import DaemonError, DeviceGoneError, DeviceOpenError
from daemon_client.key import Key, KeyOpenError
from daemon_client.process import forbid_inspection
from daemon_client.sources.config import Config, ConfigError
from daemon_client.sources.keys import Keys
from daemon_client.threads import GRACE, in_thread

logger = logging.getLogger(__name__)

PAUSE_MIN, PAUSE_MAX = 0.1, 10.0
"""Seconds between two tries to open the device: the first and the longest pause."""


class Service:
    """Serves until a signal ends it.

    load: reads the configuration; may raise ConfigError.
    """

    def __init__(self, load: Callable[[], Config]) -> None:
        self._load = load
        self._config = load()
        self._keys = Keys.load(self._config)
        self._reload_lock = trio.Lock()
        self._is_waiting = False

    def find(self, signature: str) -> Key | None:
        """The daemon finds keys here, since a reload exchanges them."""
        return self._keys.find(signature)

    async def run(self) -> None:
        """Serve. Raises DaemonError where the device is not there and nobody wants to wait."""
        failure: DaemonError | None = None
        for key in self._keys:
            logger.info("key %s: %s", key.signature, key.describe())
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._heed, signals, nursery)
                nursery.start_soon(self._open_tokens)
                # Kept for later: a nursery would wrap it into a group.
                try:
                    await self._serve_while_wanted()
                except DaemonError as error:
                    failure = error
                nursery.cancel_scope.cancel()
        with trio.move_on_after(GRACE, shield=True):
            await in_thread(lambda: self._keys.close_all_but(None))
        if failure is not None:
            raise failure

    async def _open_tokens(self) -> None:
        """Open the keys of the tokens that are there: it would delay the first request for each."""
        try:
            keys = self._keys.in_user_keyring()
        except KeyOpenError as error:
            logger.warning("%s", error)
            return
        for key in keys:
            try:
                await in_thread(key.open)
            except KeyOpenError as error:
                logger.warning("the keyring's %s cannot be opened: %s", key.signature, error)
            else:
                logger.info("key %s: %s", key.signature, key.describe())

    async def _heed(self, signals: AsyncIterator[int], nursery: trio.Nursery) -> None:
        async for number in signals:
            if number == signal.SIGHUP:
                # Not waited for: opening keys may take for ever, and the next signal be to stop.
                nursery.start_soon(self._reload)
            else:
                logger.info("stopping: %s", signal.Signals(number).name)
                notify.stopping()
                nursery.cancel_scope.cancel()

    async def _reload(self) -> None:
        async with self._reload_lock:
            notify.reloading()
            try:
                config = self._load()
                keys = await in_thread(lambda: Keys.load(config, self._keys))
            except (ConfigError, KeyOpenError) as error:
                logger.error("not reloaded, the old keys stay: %s", error)
            else:
                old, self._keys = self._keys, keys
                await in_thread(lambda: old.close_all_but(keys))
                logger.info("reloaded")
            notify.ready(self._status())
        await self._open_tokens()

    def _status(self) -> str:
        if self._is_waiting:
            return f"waiting for {self._config.device}"
        count = len(list(self._keys))
        return f"{count} {'key' if count == 1 else 'keys'}" + (
            " and those of the keyring" if self._config.keyring else ""
        )

    async def _serve_while_wanted(self) -> None:
        config, pause, said = self._config, PAUSE_MIN, ""
        while True:
            try:
                async with Daemon(
                    config.device, self, deadline=config.deadline, at_once=config.at_once
                ) as daemon:
                    pause, said, self._is_waiting = PAUSE_MIN, "", False
                    forbid_inspection()
                    click.echo(f"ready: {config.device}")
                    notify.ready(self._status())
                    await daemon.run()
                    return  # the device has said QUIT
            except (DeviceOpenError, DeviceGoneError) as error:
                if not config.wait:
                    raise
                self._is_waiting = True
                if str(error) != said:
                    said = str(error)
                    logger.warning("waiting for the device: %s", said)
                    # A user's login waits until all units of the user's manager are ready.
                    notify.ready(self._status())
            await trio.sleep(pause)
            pause = min(2 * pause, PAUSE_MAX)
