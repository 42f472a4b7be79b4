"""What all tests share: settings, and the fixtures of those that mount something."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.client import Client
from tests.isolation import isolate
from tests.mounted import MountedDevice

MountFactory = Callable[..., MountedDevice]
ClientFactory = Callable[..., Client]

# Without a stop watch: a busy machine fails no test.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


def pytest_configure(config: pytest.Config) -> None:
    """Isolate the run, and declare our markers."""
    if os.geteuid() == 0:
        isolate()
    config.addinivalue_line(
        "markers",
        "channel_only(reason): what the transport pyfuse3 cannot do, and why",
    )


def let_everyone_in(directory: Path) -> None:
    """Let other users pass through a directory and those above it, down to what is mounted."""
    for path in (directory, *directory.parents):
        if path.stat().st_uid == os.geteuid() and path != Path(path.anchor):
            path.chmod(path.stat().st_mode | 0o011)


@pytest.fixture(params=["channel", "pyfuse3"])
def transport(request: pytest.FixtureRequest) -> str:
    """Each device test runs on both transports."""
    chosen: str = request.param
    marker = request.node.get_closest_marker("channel_only")
    if marker is not None and chosen != "channel":
        pytest.skip(f"the pyfuse3 transport cannot: {marker.args[0]}")
    return chosen


@pytest.fixture
def mount(tmp_path: Path, transport: str) -> Iterator[MountFactory]:
    """Mount a device for all users with further arguments; at the end each must end well."""
    assert os.geteuid() == 0, "the tests of the mounted device act as several users: run as root"
    mounted: list[MountedDevice] = []

    def factory(*arguments: str) -> MountedDevice:
        where = tmp_path / f"mount{len(mounted)}"
        let_everyone_in(tmp_path)
        device = MountedDevice(
            where, "--allow-other", "--mode", "0666", "--transport", transport, *arguments
        )
        mounted.append(device)
        return device

    try:
        yield factory
        for device in mounted:
            if device.process.returncode is None:
                device.stop()
    finally:
        for device in mounted:
            device.clean_up()


@pytest.fixture
def device(mount: MountFactory) -> MountedDevice:
    """A mounted device with the default parameters."""
    return mount()


@pytest.fixture
def clients() -> Iterator[ClientFactory]:
    """Start processes of any user; all are gone at the end."""
    with ExitStack() as started:
        yield lambda uid=0, *prefix: started.enter_context(Client(uid, prefix))
