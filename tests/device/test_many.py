"""A thousand daemons of a thousand users, each blocked in read."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import pytest

from tests.client import PATIENCE, Client
from tests.conftest import ClientFactory
from tests.device.traffic import ask, exchange, message_of, open_device, respond
from tests.mounted import MountedDevice

CROWD = range(20_000, 21_000)
REST = "each blocked read holds one of its 99 tasks"

CrowdFactory = Callable[[], Client]

pytestmark = pytest.mark.channel_only(REST)


@pytest.fixture
def crowds() -> Iterator[CrowdFactory]:
    """Start processes that a crowd can gather in."""
    with ExitStack() as started:
        functions = Path(__file__).with_name("crowd.py")
        yield lambda: started.enter_context(Client(functions=functions))


def gather(device: MountedDevice, crowd: Client, rounds: int = 0) -> None:
    """Let the crowd's users open the device and block in read; each must succeed."""
    assert crowd.call("gather_crowd", device.path, list(CROWD), rounds) == (len(CROWD), [])
    deadline = time.monotonic() + PATIENCE
    blocked = 0
    while blocked < len(CROWD):
        assert time.monotonic() < deadline, f"{blocked} are blocked"
        flags = [daemon["flags"] for daemon in device.status()["daemons"]]
        blocked = flags.count(["IN_READ", "MISCDEV_OPEN"])


def proc_status(device: MountedDevice, name: str) -> int:
    """A number from the server's /proc/PID/status."""
    text = Path(f"/proc/{device.process.pid}/status").read_text()
    found = re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
    assert found is not None
    return int(found[1])


def turn_seconds(device: MountedDevice, client: Client, descriptor: int) -> float:
    """The median of what an exchange takes."""
    times = []
    for _ in range(30):
        started = time.perf_counter()
        assert exchange(device, client, client, descriptor, b"abc") == b"cba"
        times.append(time.perf_counter() - started)
    return median(times)


def test_a_thousand_blocked_readers_cost_little_and_slow_nobody_down(
    device: MountedDevice, clients: ClientFactory, crowds: CrowdFactory
) -> None:
    client, crowd = clients(), crowds()
    descriptor = open_device(client, device)
    alone = turn_seconds(device, client, descriptor)
    threads, kibibytes = proc_status(device, "Threads"), proc_status(device, "VmRSS")
    gather(device, crowd)
    assert proc_status(device, "Threads") <= threads
    assert proc_status(device, "VmRSS") - kibibytes < 20_000
    assert turn_seconds(device, client, descriptor) < 10 * alone


def test_a_message_wakes_just_its_own_reader(
    device: MountedDevice, clients: ClientFactory, crowds: CrowdFactory
) -> None:
    crowd = crowds()
    gather(device, crowd)
    packets: dict[int, bytes] = {}
    for uid in (CROWD[500], CROWD[0], CROWD[-1]):
        ask(clients(uid), device, b"for %d" % uid)
        packets[uid] = crowd.call("crowd_packet", uid)
        assert message_of(packets[uid]).data == b"for %d" % uid
        assert crowd.call("crowd_packets") == packets
    crowd.kill()
    crowd.wait()
    for uid, packet in packets.items():
        daemon = clients(uid)
        respond(daemon, open_device(daemon, device), packet, b"")


def test_a_thousand_daemons_killed_together_can_all_start_again_at_once(
    device: MountedDevice, crowds: CrowdFactory
) -> None:
    for _ in range(3):
        crowd = crowds()
        gather(device, crowd)
        crowd.kill()
        crowd.wait()
    gather(device, crowds())


def test_a_thousand_users_open_and_close_the_device_without_a_spurious_refusal(
    device: MountedDevice, crowds: CrowdFactory
) -> None:
    gather(device, crowds(), rounds=5)
