"""What has to hold when everybody has gone: nothing is left, lost, grown or said."""

import json
import os
import random
import re
import select
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soak.children import Children
from soak.ledger import Ledger
from soak.place import Place
from tests.mounted import MountedDevice

GROWTH_MAX = 8 << 20
"""How many bytes the server may grow after the first round: what Python keeps of a rush. A leak has
no bound."""

_PATIENCE = 10.0
_SETTLE_SECONDS = 3.0
_CONNECTIONS = Path("/sys/fs/fuse/connections")


@dataclass(frozen=True, slots=True)
class Size:
    """What the server takes: bytes of memory in use, and open descriptors."""

    memory: int
    descriptors: int


class Checks:
    """Looks at a device from outside, and never touches it itself: it may hang whoever does."""

    def __init__(self, device: MountedDevice, place: Place, children: Children) -> None:
        self._device = device
        self._place = place
        self._children = children

    def log(self) -> None:
        """The server has said nothing."""
        assert self._device.process.stderr is not None
        descriptor = self._device.process.stderr.fileno()
        os.set_blocking(descriptor, False)
        with suppress(BlockingIOError):
            if said := os.read(descriptor, 1 << 16).decode(errors="replace"):
                self._fault(f"the server says: {said.rstrip()}")

    def quiet(self) -> dict[str, Any]:
        """Nobody is registered, nothing waits, each request has had one outcome; the status."""
        deadline = time.monotonic() + self._place.timeout + _SETTLE_SECONDS
        while not self._children.faults:
            status = self._status()
            wrong = unsettled(status)
            if not wrong:
                return status
            if time.monotonic() > deadline:
                self._fault(f"everybody has gone, but {wrong}")
            time.sleep(0.02)
        return {}

    def nobody_left(self) -> None:
        """No process is left: we inherit those that outlive who forked them."""
        left = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                state, parent = stat.read_text().rpartition(")")[2].split()[:2]
                if int(parent) == os.getpid() and state != "Z":
                    left.append(int(stat.parent.name))
        left.remove(self._device.process.pid)
        if left:
            self._fault(f"processes are left: {left}")

    def size(self) -> Size:
        """What the server takes now."""
        process = Path(f"/proc/{self._device.process.pid}")
        with suppress(OSError):
            found = re.search(r"^VmRSS:\s+(\d+) kB", (process / "status").read_text(), re.MULTILINE)
            if found is not None:
                return Size(int(found[1]) << 10, len(os.listdir(process / "fd")))
        self._fault(f"the server has ended: {self._device.process.poll()}")
        return Size(0, 0)

    def grown(self, first: Size, last: Size) -> None:
        """It takes no more than it did."""
        if last.memory > first.memory + GROWTH_MAX:
            self._fault(f"the server grew from {first.memory >> 10} to {last.memory >> 10} KiB")
        if last.descriptors != first.descriptors:
            self._fault(f"the server had {first.descriptors} descriptors, now {last.descriptors}")

    def end(self) -> None:
        """SIGTERM ends the server well."""
        try:
            self._device.stop()
        except (AssertionError, subprocess.TimeoutExpired) as error:
            self._fault(f"it does not end well: {error}")

    def _fault(self, text: str) -> None:
        self._children.faults.append(text)

    def _status(self) -> dict[str, Any]:
        """control/status, read by a child: whatever becomes of that."""
        reading, writing = os.pipe()

        def read(_rng: random.Random, _book: Ledger) -> None:
            os.write(writing, Path(self._place.status).read_bytes())

        # It is short when everybody has gone, and no more than a pipe takes.
        self._children.start("reader of control/status", 0, read, "", _PATIENCE)
        os.close(writing)
        text = b""
        while select.select([reading], [], [], _PATIENCE)[0] and (
            octets := os.read(reading, 1 << 16)
        ):
            text += octets
        os.close(reading)
        self._children.wait()
        try:
            status: dict[str, Any] = json.loads(text)
        except ValueError:
            self._fault(f"control/status cannot be read: {text!r}")
            return {}
        return status


def unsettled(status: dict[str, Any]) -> str:
    """What in a status is not over; "" when everything is."""
    if not status:
        return "there is no status"
    contexts, totals = status["contexts"], status["totals"]
    if status["daemons"]:
        return f"these are registered: {status['daemons']}"
    if contexts["in_use"] or contexts["free"] != contexts["total"]:
        return f"contexts are in use: {contexts}"
    # What nobody waited for any more is over when the daemon closes that has not read it.
    told = totals["responses"] + totals["timeouts"]
    if not told <= totals["requests"] <= told + totals["messages_dropped"]:
        return f"outcomes are not one for each request: {totals}"
    return ""


def abort(mountpoint: Path) -> None:
    """Cut a mount off from its server, so that what hangs in it is let go."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        if fields[4] == str(mountpoint):
            connection = _CONNECTIONS / fields[2].partition(":")[2] / "abort"
            if not connection.exists():
                kind = ("-t", "fusectl", "fusectl")
                subprocess.run(["mount", *kind, str(_CONNECTIONS)], check=False)
            with suppress(OSError):
                connection.write_text("1")
