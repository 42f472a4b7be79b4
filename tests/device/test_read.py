import os
import signal

import pytest

from tests.conftest import ClientFactory
from tests.mounted import MountedDevice


@pytest.mark.channel_only("it knows no interrupts")
@pytest.mark.parametrize("restart", [False, True])
def test_a_signal_ends_a_blocked_read_with_0_octets(
    device: MountedDevice, clients: ClientFactory, restart: bool
) -> None:
    client = clients()
    client.call("handle_signal", signal.SIGUSR1, restart)
    fd = client.call("os.open", device.path, os.O_RDWR)
    read = client.start("raw_read", fd, 1000)
    read.wait_blocked()
    client.call("signal_thread", read.thread, signal.SIGUSR1)
    assert read.result() == b""
