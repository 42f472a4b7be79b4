import errno
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from ecryptfs_cuse.serve import Device, DeviceError, MountError, Parameters, Transport, serve
from tests.api.conftest import StartDaemon
from tests.client import PATIENCE
from tests.device.traffic import refused
from tests.mounted import is_mountpoint


async def unmount(device: Device) -> None:
    """Unmount it as somebody else would, files open in it or not."""
    await trio.run_process(["fusermount3", "-u", "-z", device.mountpoint])


def test_the_device_can_be_used_from_the_first_line_of_the_block_on(
    mountpoint: Path, transport: str, daemon_at: StartDaemon
) -> None:
    async def main() -> None:
        async with serve(mountpoint, transport=Transport(transport)) as device:
            assert device.mountpoint == str(mountpoint)
            assert device.path == str(mountpoint / "dev" / "ecryptfs")
            assert is_mountpoint(mountpoint)
            daemon = await daemon_at(device.path)
            (registered,) = device.status()["daemons"]
            assert registered["euid"] == 0
            await daemon.close()
            with trio.fail_after(PATIENCE):
                while device.status()["daemons"]:
                    await trio.sleep(0.001)
        assert not is_mountpoint(mountpoint)

    trio.run(main)


def test_one_can_be_served_after_the_other_in_one_process(
    mountpoint: Path, transport: str, daemon_at: StartDaemon
) -> None:
    async def main() -> None:
        for _ in range(3):
            async with (
                serve(mountpoint, transport=Transport(transport)) as device,
                trio.open_nursery() as nursery,
            ):
                daemon = await daemon_at(device.path)
                nursery.start_soon(daemon.reverse)
                assert await device.request(b"abc") == b"cba"

    trio.run(main)
    trio.run(main)


def test_two_at_a_time_are_refused_and_the_first_goes_on(
    mountpoint: Path, transport: str, tmp_path: Path, daemon_at: StartDaemon
) -> None:
    async def main() -> None:
        async with (
            serve(mountpoint, transport=Transport(transport)) as device,
            trio.open_nursery() as nursery,
        ):
            with pytest.raises(RuntimeError, match="one process, one mount"):
                async with serve(tmp_path, transport=Transport(transport)):
                    pass
            daemon = await daemon_at(device.path)
            nursery.start_soon(daemon.reverse)
            assert await device.request(b"abc") == b"cba"

    trio.run(main)


def test_what_cannot_be_mounted_is_an_error_and_can_be_tried_again(
    mountpoint: Path, transport: str
) -> None:
    async def main() -> None:
        with pytest.raises(MountError, match="is not a directory: create it first"):
            async with serve(mountpoint / "missing", transport=Transport(transport)):
                pass
        with pytest.raises(MountError, match="fusermount3 failed"):
            async with serve(mountpoint, options=["nonsense"], transport=Transport(transport)):
                pass
        async with serve(mountpoint, transport=Transport(transport)):
            pass

    trio.run(main)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("mine"),
        KeyboardInterrupt("mine"),
        ExceptionGroup("mine", [ValueError("one")]),
        ExceptionGroup("mine", [ValueError("one"), TypeError("two")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_the_block_raises_comes_out_as_it_is(
    mountpoint: Path, transport: str, error: BaseException
) -> None:
    async def main() -> None:
        async with serve(mountpoint, transport=Transport(transport)):
            raise error

    with pytest.raises(type(error)) as caught:
        trio.run(main)
    assert caught.value is error
    assert not is_mountpoint(mountpoint)


class UnhashableError(Exception):
    """An exception like that of a dataclass."""

    __hash__ = None  # type: ignore[assignment]  # as a class with __eq__ alone has it


@pytest.mark.parametrize(
    "error",
    [
        ValueError("mine"),
        UnhashableError("mine"),
        BaseExceptionGroup("mine", [ValueError("one"), KeyboardInterrupt("two")]),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("cancelled", [False, True], ids=["", "in a scope that is cancelled"])
def test_nothing_is_added_to_what_the_block_raises_and_nothing_taken_away(
    mountpoint: Path, transport: str, error: BaseException, cancelled: bool
) -> None:
    cause, context = LookupError("its cause"), KeyError("its context")
    error.__cause__, error.__context__, error.__suppress_context__ = cause, context, False

    async def serve_and_fail(scope: trio.CancelScope) -> None:
        async with serve(mountpoint, transport=Transport(transport)):
            if cancelled:
                scope.cancel()
            raise error

    async def main() -> None:
        with trio.CancelScope() as scope:
            with pytest.raises(type(error)) as caught:  # before the scope, which rebuilds groups
                await serve_and_fail(scope)
            assert caught.value is error

    trio.run(main)
    assert (error.__cause__, error.__context__) == (cause, context)
    assert not error.__suppress_context__
    assert not is_mountpoint(mountpoint)


def test_a_block_that_is_cancelled_leaves_nothing_mounted(mountpoint: Path, transport: str) -> None:
    async def main() -> None:
        with trio.CancelScope() as scope:
            async with serve(mountpoint, transport=Transport(transport)):
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert not is_mountpoint(mountpoint)

    trio.run(main)


def test_a_block_that_is_cancelled_releases_blocked_daemons(
    mountpoint: Path, transport: str, daemon_at: StartDaemon
) -> None:
    async def main() -> None:
        with trio.CancelScope() as scope:
            async with serve(mountpoint, transport=Transport(transport)) as device:
                daemon = await daemon_at(device.path)
                blocked = daemon.client.start("raw_read", daemon.descriptor, 1000)
                await trio.to_thread.run_sync(blocked.wait_blocked)
                scope.cancel()
                await trio.sleep_forever()
        assert await trio.to_thread.run_sync(blocked.result) == b""

    trio.run(main)


def test_a_start_that_is_cancelled_leaves_nothing_mounted(mountpoint: Path, transport: str) -> None:
    async def main() -> None:
        for milliseconds in range(0, 40, 2):
            with trio.move_on_after(milliseconds / 1000) as scope:
                async with serve(mountpoint, transport=Transport(transport)):
                    scope.cancel()
            assert not is_mountpoint(mountpoint)

    trio.run(main)


def test_at_the_end_blocked_daemons_are_released_and_requests_fail(
    mountpoint: Path, transport: str, daemon_at: StartDaemon
) -> None:
    async def main() -> None:
        read = b"not yet"

        async def ask(device: Device) -> None:
            with refused(errno.ESHUTDOWN):
                await device.request(b"anybody?", timeout=60)

        async with trio.open_nursery() as nursery:
            async with serve(
                mountpoint, options=["allow_other"], mode=0o666, transport=Transport(transport)
            ) as device:
                await daemon_at(device.path)
                reader = await daemon_at(device.path, 1000)
                blocked = reader.client.start("raw_read", reader.descriptor, 1000)
                await trio.to_thread.run_sync(blocked.wait_blocked)
                nursery.start_soon(ask, device)
                await trio.testing.wait_all_tasks_blocked()
            read = await trio.to_thread.run_sync(blocked.result)
        assert read == b""
        with pytest.raises(DeviceError) as caught:
            await device.request(b"anybody?")
        assert caught.value.errno == errno.ENODEV

    trio.run(main)


def test_an_unmount_by_somebody_else_is_noticed(mountpoint: Path, transport: str) -> None:
    async def main() -> None:
        async with serve(mountpoint, transport=Transport(transport)) as device:
            await unmount(device)
            with trio.fail_after(PATIENCE):
                await device.wait_unmounted()

    trio.run(main)


def test_an_unmount_by_somebody_else_fails_the_requests_that_wait(
    mountpoint: Path, transport: str, daemon_at: StartDaemon
) -> None:
    async def main() -> None:
        async with (
            serve(
                mountpoint, Parameters(message_wait_timeout=60), transport=Transport(transport)
            ) as device,
            trio.open_nursery() as nursery,
        ):
            await daemon_at(device.path)
            nursery.start_soon(unmount, device)
            with trio.fail_after(PATIENCE), refused(errno.ESHUTDOWN):
                await device.request(b"anybody?")

    trio.run(main)


def test_other_tasks_run_while_the_device_serves(
    mountpoint: Path, transport: str, daemon_at: StartDaemon
) -> None:
    async def main() -> None:
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                await trio.sleep(0)
                turns += 1

        async with (
            serve(mountpoint, transport=Transport(transport)) as device,
            trio.open_nursery() as nursery,
        ):
            daemon = await daemon_at(device.path)
            nursery.start_soon(turn)
            blocked = daemon.client.start("raw_read", daemon.descriptor, 1000)
            await trio.to_thread.run_sync(blocked.wait_blocked)
            before = turns
            with trio.fail_after(PATIENCE):
                while turns < before + 100:
                    await trio.sleep(0)
            nursery.cancel_scope.cancel()
        assert await trio.to_thread.run_sync(blocked.result) == b""

    trio.run(main)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": -1},
        {"mode": 0o1777},
        {"transport": "pigeon"},
        {"identity": "nobody"},
        {"options": "allow_other"},
        {"uid": -1},
        {"gid": 1 << 32},
    ],
    ids=str,
)
def test_what_nothing_can_be_served_with_is_refused_at_once(
    mountpoint: Path, wrong: dict[str, Any]
) -> None:
    with pytest.raises((ValueError, TypeError)):
        serve(mountpoint, **wrong)
