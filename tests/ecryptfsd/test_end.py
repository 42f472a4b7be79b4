import signal

import pytest

from tests.client import PATIENCE
from tests.conftest import MountFactory
from tests.ecryptfsd.conftest import DaemonFactory
from tests.ecryptfsd.daemon import DEVICE_REFUSED
from tests.ecryptfsd.device_log import log_at_end
from tests.mounted import MountedDevice

AT_ONCE = 1.0


@pytest.mark.channel_only("it knows no interrupts, so that the signal waits for the next request")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_waits_in_read_makes_it_quit_and_the_next_one_is_let_in(
    mount: MountFactory, daemons: DaemonFactory, number: signal.Signals
) -> None:
    device = mount("-v")
    first = daemons(device)
    first.wait_reading()
    first.kill(number)
    assert first.wait(AT_ONCE) == 0
    daemons(device).wait_reading()
    assert log_at_end(device)[:6] == [
        "0: daemon registered",
        "0: HELO",
        "0: QUIT",
        "0: daemon gone",
        "0: daemon registered",
        "0: HELO",
    ]


@pytest.mark.channel_only("it knows no interrupts, so that not even SIGKILL ends a read")
def test_killed_while_it_waits_in_read_it_is_gone_and_the_next_one_is_let_in(
    mount: MountFactory, daemons: DaemonFactory
) -> None:
    device = mount("-v")
    first = daemons(device)
    first.wait_reading()
    first.kill(signal.SIGKILL)
    assert first.wait(AT_ONCE) == -signal.SIGKILL
    daemons(device).wait_reading()
    assert log_at_end(device)[:5] == [
        "0: daemon registered",
        "0: HELO",
        "0: daemon gone",
        "0: daemon registered",
        "0: HELO",
    ]


def test_it_ends_when_its_device_is_stopped(device: MountedDevice, daemons: DaemonFactory) -> None:
    daemon = daemons(device)
    daemon.wait_reading()
    device.stop()
    assert daemon.wait() == DEVICE_REFUSED


def test_it_ends_when_its_device_is_killed(device: MountedDevice, daemons: DaemonFactory) -> None:
    daemon = daemons(device)
    daemon.wait_reading()
    device.process.kill()
    device.process.communicate(timeout=PATIENCE)
    assert daemon.wait() == DEVICE_REFUSED
