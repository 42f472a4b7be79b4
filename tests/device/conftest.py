"""Fixtures of the device tests: most share a device, and each must leave it as it was."""

from collections.abc import Iterator

import pytest

from tests.conftest import let_everyone_in
from tests.mounted import MountedDevice

_Pool = dict[tuple[str, ...], MountedDevice]


@pytest.fixture(scope="session")
def _pool() -> Iterator[_Pool]:
    """The devices that stay mounted from test to test, by their arguments; all must end well."""
    pool: _Pool = {}
    try:
        yield pool
        for device in pool.values():
            device.stop()
    finally:
        for device in pool.values():
            device.clean_up()


def _lend(pool: _Pool, factory: pytest.TempPathFactory, *arguments: str) -> Iterator[MountedDevice]:
    if arguments not in pool:
        where = factory.mktemp("shared") / "mount"
        let_everyone_in(where.parent)
        pool[arguments] = MountedDevice(where, "--allow-other", "--mode", "0666", *arguments)
    device = pool[arguments]
    try:
        yield device
        device.wait_status("daemons", equals=[])
        device.wait_status("contexts", "in_use", equals=[])
    except BaseException:
        pool.pop(arguments).clean_up()
        raise


@pytest.fixture
def device(
    _pool: _Pool, tmp_path_factory: pytest.TempPathFactory, transport: str
) -> Iterator[MountedDevice]:
    """A device with the default parameters. Every daemon and request is gone after the test."""
    yield from _lend(_pool, tmp_path_factory, "--transport", transport)


@pytest.fixture
def hasty_device(
    _pool: _Pool, tmp_path_factory: pytest.TempPathFactory, transport: str
) -> Iterator[MountedDevice]:
    """As ``device``, but requests wait for half a second only."""
    yield from _lend(
        _pool, tmp_path_factory, "--transport", transport, "--message-wait-timeout", "0.5"
    )
