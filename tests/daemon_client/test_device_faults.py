"""The daemon on a device that misbehaves."""

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from daemon_client import Daemon, DaemonError, DeviceGoneError, DeviceOpenError
from daemon_client.device import Device
from daemon_client.modules.openssl import PemKey
from ecryptfs_cuse.wire.packet import Message, Packet, PacketType, build_message, build_packet
from ecryptfs_cuse.wire.tags import Tag66, build_request
from tests.daemon_client.scripted import HELO, QUIT, scripted
from tests.daemon_client.serving import SlowKey
from tests.daemon_client.trio_test import in_trio

UNKNOWN_TAG = build_packet(Packet(PacketType.REQUEST, 9, build_message(Message(3, b"\x99"))))
FAILED = build_packet(Packet(PacketType.RESPONSE, 9, build_message(Message(3, b"\x41\xff"))))


@in_trio
async def test_helo_comes_first_and_quit_last(tmp_path: Path) -> None:
    async with scripted(tmp_path) as device:
        async with Daemon(device.path, []) as daemon, trio.open_nursery() as nursery:
            assert device.written == [HELO]
            nursery.start_soon(daemon.run)
            device.say(UNKNOWN_TAG)
            await device.wait_written(FAILED)
            nursery.cancel_scope.cancel()
        await device.released.wait()
        assert device.written == [HELO, FAILED, QUIT]


@in_trio
async def test_quit_from_the_device_is_answered_by_quit(tmp_path: Path) -> None:
    async with scripted(tmp_path) as device:
        async with Daemon(device.path, []) as daemon:
            device.say(HELO, b"\xff rubbish", b"\x66", QUIT)
            await daemon.run()
        await device.released.wait()
        assert device.written == [HELO, QUIT]


@in_trio
async def test_requests_before_quit_are_answered_before_quit(tmp_path: Path, key: PemKey) -> None:
    slow = SlowKey(key)
    request = Message(3, build_request(Tag66(slow.signature, b"x")))
    async with scripted(tmp_path) as device:
        async with Daemon(device.path, [slow]) as daemon, trio.open_nursery() as nursery:
            device.say(build_packet(Packet(PacketType.REQUEST, 9, build_message(request))), QUIT)
            nursery.start_soon(daemon.run)
            await slow.wait_started()
            slow.may_go_on.set()
        await device.released.wait()
        assert [packet[0] for packet in device.written] == [100, 103, 101]


@in_trio
async def test_empty_reads_now_and_then_mean_nothing(tmp_path: Path) -> None:
    async with scripted(tmp_path) as device:
        async with Daemon(device.path, []) as daemon:
            device.say(*[b"", b"", UNKNOWN_TAG] * 60, QUIT)
            await daemon.run()
        assert device.written.count(FAILED) == 60


@in_trio
async def test_a_device_that_only_gives_empty_reads_is_gone(tmp_path: Path) -> None:
    async with scripted(tmp_path) as device, Daemon(device.path, []) as daemon:
        device.gives_nothing = True
        device.say()
        with pytest.raises(DeviceGoneError, match="gives nothing"):
            await daemon.run()


@pytest.mark.parametrize("number", [errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV])
@in_trio
async def test_a_read_that_says_the_device_is_gone_ends_the_daemon(
    tmp_path: Path, number: int
) -> None:
    async with scripted(tmp_path) as device, Daemon(device.path, []) as daemon:
        device.say(number)
        with pytest.raises(DeviceGoneError, match="is gone"):
            await daemon.run()


@in_trio
async def test_a_read_that_fails_otherwise_ends_the_daemon_too(tmp_path: Path) -> None:
    async with scripted(tmp_path) as device, Daemon(device.path, []) as daemon:
        device.say(errno.EIO)
        with pytest.raises(DaemonError, match="cannot read"):
            await daemon.run()


@in_trio
async def test_answers_that_are_refused_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with scripted(tmp_path) as device, Daemon(device.path, []) as daemon:
        device.write_fails_with = {FAILED: errno.ENOMEM}
        device.say(UNKNOWN_TAG, QUIT)
        await daemon.run()
    assert "answer 9 was not written: Cannot allocate memory" in caplog.text


@in_trio
async def test_a_device_that_refuses_helo_is_closed(tmp_path: Path) -> None:
    async with scripted(tmp_path) as device:
        device.write_fails_with = {HELO: errno.EINVAL}
        with pytest.raises(DaemonError, match="does not take HELO"):
            async with Daemon(device.path, []):
                raise AssertionError("it is not registered")
        await device.released.wait()


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EINVAL, "has a daemon already"),
        (errno.ENOENT, "modprobe ecryptfs"),
        (errno.EACCES, "permission denied"),
        (errno.ENOTCONN, "its server has died"),
        (errno.EIO, "Input/output error"),
    ],
)
@in_trio
async def test_a_device_that_cannot_be_opened_is_explained(
    tmp_path: Path, number: int, said: str
) -> None:
    async with scripted(tmp_path) as device:
        device.open_fails_with = number
        with pytest.raises(DeviceOpenError, match=said):
            async with Daemon(device.path, []):
                raise AssertionError("it is not open")


@in_trio
async def test_a_file_given_for_a_device_keeps_its_content(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_text("precious")
    with pytest.raises(DeviceOpenError, match="not an eCryptfs device"):
        async with Daemon(file, []):
            raise AssertionError("it is not open")
    assert file.read_text() == "precious"


@in_trio
async def test_an_open_that_returns_after_its_cancellation_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_grace: None
) -> None:
    is_asked, may_open = threading.Event(), threading.Event()
    real_open = os.open

    def slow_open(path: Any, *arguments: Any, **keywords: Any) -> int:
        if path == device.path:
            is_asked.set()
            may_open.wait()
        return real_open(path, *arguments, **keywords)

    async def daemon_task() -> None:
        async with Daemon(device.path, []):
            raise AssertionError("it was cancelled")

    async with scripted(tmp_path) as device:
        monkeypatch.setattr(os, "open", slow_open)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon_task)
            assert await trio.to_thread.run_sync(is_asked.wait, 5)
            nursery.cancel_scope.cancel()
        may_open.set()
        await device.released.wait()
        assert device.written == []


@in_trio
async def test_a_packet_that_comes_when_the_daemon_has_ended_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_grace: None
) -> None:
    is_asked, may_return, is_back = threading.Event(), threading.Event(), threading.Event()

    def late(device: Device) -> bytes | None:
        if is_asked.is_set():
            is_back.set()
            return None
        is_asked.set()
        may_return.wait()
        return UNKNOWN_TAG

    monkeypatch.setattr(Device, "receive", late)
    async with scripted(tmp_path) as device:
        async with Daemon(device.path, []) as daemon, trio.open_nursery() as nursery:
            nursery.start_soon(daemon.run)
            assert await trio.to_thread.run_sync(is_asked.wait, 5)
            nursery.cancel_scope.cancel()
        may_return.set()
        assert await trio.to_thread.run_sync(is_back.wait, 5)
        await wait_all_tasks_blocked()
        assert device.written == [HELO, QUIT]
