"""Ctrl-C in a program that embeds the device, and what else befalls it: failures, children."""

import contextlib
import json
import os
import queue
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pyfuse3
import pytest
import trio
from outcome import Outcome

from ecryptfs_cuse.fuse import connection
from ecryptfs_cuse.fuse import mount as mounts
from ecryptfs_cuse.fuse.channel import Channel
from ecryptfs_cuse.fuse.mountinfo import Entry
from ecryptfs_cuse.nodes.exchange import Exchange
from ecryptfs_cuse.serve import MountError, Transport, serve
from tests.api.conftest import StartDaemon
from tests.client import PATIENCE, Pending
from tests.mounted import is_mountpoint

MANY = 60
LEAKED_MAX = 10 << 20
"""Octets; the library's buffers alone would be four times as many."""


def run_module(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A program of our own that embeds the device."""
    command = [sys.executable, "-m", f"tests.api.{name}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_wherever_it_is_interrupted_nothing_hangs_and_nothing_stays_mounted(
    mountpoint: Path, transport: str
) -> None:
    seed = str(random.randrange(1 << 32))
    done = run_module("interrupted", str(mountpoint), transport, seed)
    assert done.returncode == 0, f"seed {seed}:\n{done.stdout}{done.stderr}"


def test_serving_again_and_again_costs_nothing(mountpoint: Path, transport: str) -> None:
    done = run_module("cycles", str(mountpoint), transport, str(MANY))
    grown = json.loads(done.stdout)
    assert grown["memory"] < LEAKED_MAX
    assert (grown["descriptors"], grown["threads"]) == (0, 0)


async def fail(*_arguments: object) -> None:
    """What no serving task should ever do."""
    raise LookupError("it failed")


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Exchange, "run"),
        (Channel, "run"),
        (Channel, "_pass_replies_back"),
        (pyfuse3, "main"),
    ],
)
def test_a_serving_task_that_fails_ends_the_start_with_its_error(
    mountpoint: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    async def start() -> None:
        async with serve(mountpoint):
            await trio.sleep_forever()

    async def main() -> None:
        with trio.fail_after(PATIENCE):
            monkeypatch.setattr(owner, name, fail)
            with pytest.raises(LookupError, match="it failed"):
                await start()
            monkeypatch.undo()
            assert not is_mountpoint(mountpoint)
            async with serve(mountpoint):
                pass

    trio.run(main)


@pytest.mark.parametrize("call", [os.readv, os.writev], ids=["reading", "answering"])
def test_a_channel_that_fails_cancels_the_block_and_lets_nobody_wait(
    mountpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    daemon_at: StartDaemon,
    call: Callable[..., int],
) -> None:
    def broken(*_arguments: object) -> int:
        monkeypatch.undo()
        raise LookupError("it failed")

    async def main() -> None:
        async with serve(mountpoint) as device:
            daemon = await daemon_at(device.path)
            blocked.append(daemon.client.start("raw_read", daemon.descriptor, 1000))
            await trio.to_thread.run_sync(blocked[0].wait_blocked)
            monkeypatch.setattr(os, call.__name__, broken)
            await trio.to_thread.run_sync(os.listdir, mountpoint)
            await trio.sleep_forever()

    blocked: list[Pending] = []
    with pytest.raises(LookupError, match="it failed"):
        trio.run(main)
    assert not is_mountpoint(mountpoint)
    with contextlib.suppress(OSError):
        assert blocked[0].result() == b""


def test_a_mount_that_vanishes_while_it_starts_is_an_error(
    mountpoint: Path, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = mounts.mount

    def mount_and_lose(where: str, options: tuple[str, ...]) -> tuple[int, Entry]:
        mounted = mount(where, options)
        subprocess.run(["fusermount3", "-u", "-z", where], check=True)
        return mounted

    async def main() -> None:
        monkeypatch.setattr(mounts, "mount", mount_and_lose)
        with trio.fail_after(PATIENCE), pytest.raises(MountError, match="before it was ready"):
            async with serve(mountpoint, transport=Transport(transport)):
                pass
        monkeypatch.undo()
        async with serve(mountpoint, transport=Transport(transport)):
            pass

    trio.run(main)


def test_in_a_cancelled_scope_nothing_is_mounted(
    mountpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        monkeypatch.setattr(mounts, "mount", None)  # to be called by nobody
        with trio.CancelScope() as scope:
            scope.cancel()
            async with serve(mountpoint):
                raise AssertionError("it was entered")
        assert scope.cancelled_caught

    trio.run(main)


def test_a_child_of_fork_holds_nothing(
    mountpoint: Path, transport: str, daemon_at: StartDaemon
) -> None:
    """Neither is its parent disturbed, when such a child ends in any way, nor does anybody wait."""

    children: list[int] = []

    def fork() -> None:
        children.append(os.fork())
        if children == [0]:
            while True:
                signal.pause()

    async def main() -> None:
        async with serve(mountpoint, transport=Transport(transport)) as device:
            daemon = await daemon_at(device.path)
            fork()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(daemon.reverse)
                assert await device.request(b"abc") == b"cba"
        with trio.fail_after(PATIENCE):
            with pytest.raises(OSError, match=r"not connected|abort"):
                await daemon.read()
            async with serve(mountpoint, transport=Transport(transport)) as device:
                await daemon_at(device.path)

    try:
        trio.run(main)
    finally:
        os.kill(children[0], signal.SIGKILL)
        os.waitpid(children[0], 0)


@pytest.mark.parametrize("mended", ["abort", "let_go"])
def test_either_way_of_ending_the_connection_is_enough(
    mountpoint: Path,
    transport: str,
    daemon_at: StartDaemon,
    monkeypatch: pytest.MonkeyPatch,
    mended: str,
) -> None:
    if mended == "abort":
        monkeypatch.setattr(connection, "_connections", set_that_forgets())
    else:
        monkeypatch.setattr(connection, "_open_switch", lambda _path: None)
    test_a_child_of_fork_holds_nothing(mountpoint, transport, daemon_at)


def set_that_forgets() -> set[object]:
    """A set to which nothing is added."""

    class Forgetful(set[object]):
        def add(self, _element: object) -> None: ...
        def remove(self, _element: object) -> None: ...

    return Forgetful()


def test_a_child_of_fork_may_serve_a_mount_of_its_own(mountpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()

    def serve_in_child() -> int:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                trio.run(serve_other)
                status = 0
            finally:
                os._exit(status)
        return os.waitpid(child, 0)[1]

    async def serve_other() -> None:
        async with serve(other):
            assert is_mountpoint(other)
        assert not is_mountpoint(other)

    async def main() -> None:
        async with serve(mountpoint):
            started.set()
            await trio.to_thread.run_sync(done.wait)

    started, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=trio.run, args=[main])
    thread.start()
    try:
        assert started.wait(PATIENCE)
        assert serve_in_child() == 0
    finally:
        done.set()
        thread.join()


def test_two_threads_each_with_a_loop_can_serve_one_after_the_other(
    mountpoint: Path, tmp_path: Path, transport: str
) -> None:
    other = tmp_path / "other"
    other.mkdir()

    def run(function: Callable[[], Awaitable[None]]) -> None:
        thread = threading.Thread(target=trio.run, args=[function])
        thread.start()
        thread.join(PATIENCE)
        assert not thread.is_alive()

    async def refused() -> None:
        with pytest.raises(RuntimeError, match="one process, one mount"):
            async with serve(other, transport=Transport(transport)):
                pass

    async def served() -> None:
        async with serve(other, transport=Transport(transport)):
            served_in.append(threading.get_ident())

    async def main() -> None:
        async with serve(mountpoint, transport=Transport(transport)):
            await trio.to_thread.run_sync(run, refused)
        await trio.to_thread.run_sync(run, served)

    served_in: list[int] = []
    trio.run(main)
    assert len(served_in) == 1


def test_it_serves_where_trio_is_a_guest(
    mountpoint: Path, transport: str, daemon_at: StartDaemon
) -> None:
    todo: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
    ended: list[Outcome[None]] = []

    async def main() -> None:
        async with (
            serve(mountpoint, transport=Transport(transport)) as device,
            trio.open_nursery() as nursery,
        ):
            daemon = await daemon_at(device.path)
            nursery.start_soon(daemon.reverse)
            assert await device.request(b"abc") == b"cba"

    trio.lowlevel.start_guest_run(
        main, run_sync_soon_threadsafe=todo.put, done_callback=ended.append
    )
    while not ended:
        todo.get(timeout=PATIENCE)()
    ended[0].unwrap()


def test_a_service_that_runs_cannot_be_entered_once_more(mountpoint: Path) -> None:
    async def main() -> None:
        service = serve(mountpoint)
        async with service:
            with pytest.raises(RuntimeError, match="runs once"):
                async with service:
                    pass
            assert is_mountpoint(mountpoint)

    trio.run(main)
