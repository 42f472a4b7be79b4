"""The daemon on the emulated device, both in one thread."""

import errno
import logging
import os
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from daemon_client import Daemon, DeviceGoneError, DeviceOpenError
from daemon_client.modules.openssl import PemKey
from ecryptfs_cuse.serve import Device, DeviceError, Transport
from ecryptfs_cuse.wire.tags import FileKey, Tag64, Tag66, build_file_key, build_request
from tests.daemon_client.serving import PAYLOAD, UNKNOWN, running, served, unwrap, wrap
from tests.daemon_client.trio_test import in_trio


@pytest.mark.parametrize("transport", Transport)
@in_trio
async def test_32_requests_wait_for_it_the_33rd_is_refused_and_the_32_are_answered(
    tmp_path: Path, key: PemKey, transport: Transport
) -> None:
    payloads = [build_file_key(FileKey(7, bytes([number] * 16))) for number in range(32)]
    back: dict[int, bytes] = {}

    async def there_and_back(device: Device, number: int) -> None:
        back[number] = await wrap(device, key.signature, payloads[number])

    async with (
        served(tmp_path, transport) as device,
        Daemon(device.path, [key]) as daemon,
        trio.open_nursery() as daemons,
    ):
        async with trio.open_nursery() as requests:
            for number in range(32):
                requests.start_soon(there_and_back, device, number)
            await wait_all_tasks_blocked()
            with pytest.raises(DeviceError) as caught:
                await wrap(device, key.signature)
            daemons.start_soon(daemon.run)
        assert caught.value.errno == errno.ENOMEM
        assert [
            await unwrap(device, key.signature, back[number]) for number in range(32)
        ] == payloads
        daemons.cancel_scope.cancel()


@pytest.mark.parametrize("transport", Transport)
@in_trio
async def test_100_keys_come_back_as_they_were(
    tmp_path: Path, key: PemKey, transport: Transport
) -> None:
    payloads = [build_file_key(FileKey(7, os.urandom(16 + i % 17))) for i in range(100)]
    back: list[bytes] = []
    async with served(tmp_path, transport) as device, running(device, key):
        for payload in payloads:
            encrypted = await wrap(device, key.signature, payload)
            back.append(await unwrap(device, key.signature, encrypted))
    assert back == payloads


@in_trio
async def test_30_requests_at_a_time_are_all_answered(tmp_path: Path, key: PemKey) -> None:
    payloads = [build_file_key(FileKey(7, os.urandom(16))) for _ in range(30)]
    back: dict[bytes, bytes] = {}

    async def both_ways(payload: bytes) -> None:
        encrypted = await wrap(device, key.signature, payload)
        back[payload] = await unwrap(device, key.signature, encrypted)

    async with served(tmp_path) as device, running(device, key):
        async with trio.open_nursery() as nursery:
            for payload in payloads:
                nursery.start_soon(both_ways, payload)
        assert device.status()["totals"]["responses_refused"] == 0
    assert back == {payload: payload for payload in payloads}


@in_trio
async def test_each_of_two_keys_answers_for_itself(
    tmp_path: Path, key: PemKey, other_key: PemKey
) -> None:
    async with served(tmp_path) as device, running(device, key, other_key):
        encrypted = await wrap(device, key.signature)
        other = await wrap(device, other_key.signature)
        assert (len(encrypted), len(other)) == (256, 128)
        assert await unwrap(device, key.signature, encrypted) == PAYLOAD
        assert await unwrap(device, other_key.signature, other) == PAYLOAD
        assert await device.request(build_request(Tag64(key.signature, other))) == b"\x41\xff"


@in_trio
async def test_an_unknown_signature_fails_at_once(tmp_path: Path, key: PemKey) -> None:
    async with served(tmp_path) as device, running(device, key):
        assert await device.request(build_request(Tag66(UNKNOWN, PAYLOAD))) == b"\x43\xff"
        assert await device.request(build_request(Tag64(UNKNOWN, bytes(256)))) == b"\x41\xff"
        assert await device.request(b"rubbish") == b"\x41\xff"
        assert await device.request(b"\x42") == b"\x43\xff"
        assert await unwrap(device, key.signature, await wrap(device, key.signature)) == PAYLOAD


@pytest.mark.parametrize("transport", Transport)
@in_trio
async def test_a_cancelled_daemon_ends_at_once_and_the_next_can_register(
    tmp_path: Path, key: PemKey, transport: Transport
) -> None:
    async with served(tmp_path, transport) as device:
        for _ in range(5):
            with trio.fail_after(0.9):  # less than what a call that does not return is given
                async with running(device, key):
                    await wrap(device, key.signature)
        with trio.fail_after(0.9), trio.CancelScope() as scope:
            async with Daemon(device.path, [key]) as daemon:
                scope.cancel()
                await daemon.run()
        assert scope.cancelled_caught
        async with running(device, key):
            await wrap(device, key.signature)


@in_trio
async def test_a_second_daemon_of_a_user_is_told_so(tmp_path: Path, key: PemKey) -> None:
    async with served(tmp_path) as device, running(device, key):
        with pytest.raises(DeviceOpenError, match="has a daemon already"):
            async with Daemon(device.path, [key]):
                pass
        await wrap(device, key.signature)


@in_trio
async def test_a_server_that_ends_ends_the_daemon_that_waits(tmp_path: Path, key: PemKey) -> None:
    async with trio.open_nursery() as nursery:
        registered, ended = trio.Event(), trio.Event()

        async def daemon_task(path: str) -> None:
            async with Daemon(path, [key]) as daemon:
                registered.set()
                with pytest.raises(DeviceGoneError, match="is gone"):
                    await daemon.run()
            ended.set()

        async with served(tmp_path) as device:
            nursery.start_soon(daemon_task, device.path)
            await registered.wait()
            await wrap(device, key.signature)
            assert not ended.is_set()
        await ended.wait()


@in_trio
async def test_server_and_daemon_may_be_cancelled_together(
    tmp_path: Path, key: PemKey, short_grace: None
) -> None:
    with trio.CancelScope() as scope:
        async with served(tmp_path) as device, running(device, key):
            await wrap(device, key.signature)
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    async with served(tmp_path) as device, running(device, key):
        await wrap(device, key.signature)


@in_trio
async def test_a_requester_that_has_given_up_before_the_daemon_read_is_dropped(
    tmp_path: Path, key: PemKey, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "daemon_client")
    async with served(tmp_path) as device, Daemon(device.path, [key]) as daemon:
        with pytest.raises(DeviceError, match="in time"):
            await device.request(build_request(Tag66(key.signature, PAYLOAD)), timeout=0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon.run)
            await wrap(device, key.signature)
            nursery.cancel_scope.cancel()
        assert device.status()["totals"]["responses_refused"] == 0
    assert "the requester of 1 has given up" in caplog.text


@in_trio
async def test_run_is_for_the_block_and_for_once(tmp_path: Path, key: PemKey) -> None:
    async with served(tmp_path) as device:
        daemon = Daemon(device.path, [key])
        with pytest.raises(RuntimeError):
            await daemon.run()
        async with daemon, trio.open_nursery() as nursery:
            nursery.start_soon(daemon.run)
            await wait_all_tasks_blocked()
            with pytest.raises(RuntimeError):
                await daemon.run()
            nursery.cancel_scope.cancel()
        with pytest.raises(RuntimeError):
            await daemon.__aenter__()


@in_trio
async def test_nothing_secret_is_logged(
    tmp_path: Path, key: PemKey, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with served(tmp_path) as device, running(device, key):
        encrypted = await wrap(device, key.signature)
        await unwrap(device, key.signature, encrypted)
        for request in (Tag64(key.signature, PAYLOAD), Tag66(UNKNOWN, PAYLOAD)):
            await device.request(build_request(request))
    assert "is answered" in caplog.text
    assert "fails" in caplog.text
    for secret in (PAYLOAD, PAYLOAD[1:-2], encrypted):
        assert secret.hex() not in caplog.text
        assert repr(secret)[2:-1] not in caplog.text


@in_trio
async def test_a_daemon_leaves_no_descriptor_behind(tmp_path: Path, key: PemKey) -> None:
    async with served(tmp_path) as device:
        async with running(device, key):
            await wrap(device, key.signature)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            async with running(device, key):
                await wrap(device, key.signature)
        with pytest.raises(DeviceOpenError):
            async with Daemon(tmp_path / "none", [key]):
                pass
        assert len(os.listdir("/proc/self/fd")) == before
