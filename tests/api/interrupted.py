"""Ctrl-C at every point: a program that embeds the device is interrupted wherever it can be.

    python -m tests.api.interrupted MOUNTPOINT TRANSPORT all|SEED

Each time a fresh process serves the device and has a request answered, and gets SIGINT: with "all"
at each line of ours, once; with a seed at some of them and at random moments. Prints what did not
end well.
"""

import ctypes
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from ast import literal_eval
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pyfuse3
import trio

import ecryptfs_cuse.serve
from ecryptfs_cuse.fuse import session
from ecryptfs_cuse.fuse.connection import Connection
from ecryptfs_cuse.fuse.mountinfo import stack
from ecryptfs_cuse.serve import Transport, serve
from tests.client import PATIENCE
from tests.device.traffic import PACKET_MAX, message_of, response_to
from tests.mounted import is_mountpoint

LINES = 50
MOMENTS = 20
LONGEST = 0.1
"""Seconds in which an interrupt comes at random; a run takes about as long."""

OURS = [str(Path(str(module.__file__)).parent) for module in (ecryptfs_cuse.serve, pyfuse3)]

Point = tuple[str, int, str]
"""A file, a line, and whether a function is called there, returns there, or the line is reached."""


def reverse(path: str) -> None:
    """A daemon that answers one request, and waits for another until the device goes."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return  # interrupted before it could start
    try:
        packet = os.read(descriptor, PACKET_MAX)
        if packet:
            os.write(descriptor, response_to(packet, message_of(packet).data[::-1]))
            os.read(descriptor, PACKET_MAX)
    except OSError:
        pass  # the connection is gone
    finally:
        os.close(descriptor)


async def use(mountpoint: Path, transport: str, threads: list[threading.Thread]) -> None:
    """Serve, and have a request answered."""
    async with serve(mountpoint, transport=Transport(transport)) as device:
        thread = threading.Thread(target=reverse, args=[device.path])
        thread.start()
        threads.append(thread)
        while not device.status()["daemons"]:
            await trio.sleep(0.001)
        assert await device.request(b"abc", timeout=PATIENCE) == b"cba"


def observe(seen: Callable[[Point], None]) -> None:
    """Tell of each point of ours that this thread comes by."""

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(tuple(OURS)):
            return None
        seen((frame.f_code.co_filename, frame.f_lineno, event))
        return trace

    sys.settrace(trace)


def run(mountpoint: Path, transport: str, arm: Callable[[], None]) -> None:
    """Serve once, to the end or until an interrupt; all must be as it was before."""
    threads: list[threading.Thread] = []
    before = len(os.listdir("/proc/self/fd"))
    try:
        arm()
        trio.run(use, mountpoint, transport, threads)
    finally:
        sys.settrace(None)
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "the daemon is still blocked"
    assert not session._hosting.locked()
    assert len(os.listdir("/proc/self/fd")) == before, os.listdir("/proc/self/fd")


def in_child(function: Callable[[], None], mountpoint: Path) -> str:
    """Run the function in a child; what went wrong."""
    child = os.fork()
    if child == 0:
        try:
            ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
            function()
        except BaseException:
            traceback.print_exc(file=sys.stdout)
            sys.stdout.flush()
            os._exit(1)
        os._exit(0)
    watched = os.pidfd_open(child)
    hangs = not select.select([watched], [], [], PATIENCE)[0]
    os.close(watched)
    if hangs:
        os.kill(child, signal.SIGKILL)
        if is_mountpoint(mountpoint):  # a thread of the child may wait for the child itself
            Connection(stack(str(mountpoint))[0].connection).cut()
    status = os.waitpid(child, 0)[1]
    return "it hangs" if hangs else "" if status == 0 else "it failed"


def check(what: str, mountpoint: Path, function: Callable[[], None]) -> bool:
    """Whether the function ended well in a child."""
    wrong = in_child(function, mountpoint)
    if is_mountpoint(mountpoint):
        wrong += " it is still mounted"
        subprocess.run(["fusermount3", "-u", "-z", str(mountpoint)], check=False)
    if wrong:
        print(f"{what}: {wrong}", flush=True)
    return not wrong


def all_points(mountpoint: Path, transport: str) -> list[Point]:
    """Every point that a run comes by, in their order."""
    found = mountpoint.with_suffix(".points")

    def write_points() -> None:
        points: dict[Point, None] = {}
        run(mountpoint, transport, lambda: observe(lambda point: points.setdefault(point)))
        found.write_text(repr(list(points)))

    assert check("nothing happens", mountpoint, write_points)
    points: list[Point] = literal_eval(found.read_text())
    return points


def interrupt_at(point: Point, mountpoint: Path, transport: str) -> None:
    """Interrupt a run when it comes to the point; a run may not come by it each time."""
    armed = [point]

    def seen(here: Point) -> None:
        if here in armed:
            armed.clear()
            signal.raise_signal(signal.SIGINT)

    try:
        run(mountpoint, transport, lambda: observe(seen))
    except KeyboardInterrupt:
        return
    assert armed, "the interrupt was lost"


def interrupt_after(seconds: float, mountpoint: Path, transport: str) -> None:
    """Interrupt a run after so many seconds, if it is not over by then."""

    def interrupt() -> None:
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGINT)

    try:
        run(mountpoint, transport, threading.Thread(target=interrupt, daemon=True).start)
    except KeyboardInterrupt:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def main(where: str, transport: str, when: str) -> bool:
    """Whether all ended well."""
    mountpoint = Path(where)
    points = all_points(mountpoint, transport)
    assert len(points) > 200, "the points were not found"
    moments: list[float] = []
    if when != "all":
        chance = random.Random(when)
        points = chance.sample(points, LINES)
        moments = [chance.uniform(0, LONGEST) for _ in range(MOMENTS)]
    runs = [
        (f"{Path(file).name}:{line} ({event})", partial(interrupt_at, (file, line, event)))
        for file, line, event in points
    ] + [(f"after {moment} s", partial(interrupt_after, moment)) for moment in moments]
    ended_well = [
        check(what, mountpoint, partial(run, mountpoint, transport)) for what, run in runs
    ]
    return all(ended_well)


if __name__ == "__main__":
    sys.exit(0 if main(*sys.argv[1:]) else 1)
