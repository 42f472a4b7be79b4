"""The daemon with key stores that are slow, or hang: who waits, for how long, and who does not."""

import contextlib
import errno
import threading
from pathlib import Path

import pytest
import trio

from daemon_client import Key
from daemon_client import daemon as daemon_module
from daemon_client.daemon import Daemon
from daemon_client.modules.openssl import PemKey
from ecryptfs_cuse.serve import Device, DeviceError
from ecryptfs_cuse.wire.tags import Tag66, build_request
from tests.daemon_client.serving import (
    PAYLOAD,
    UNKNOWN,
    SlowKey,
    running,
    served,
    unwrap,
    wrap,
)
from tests.daemon_client.trio_test import in_trio

ASK_THE_SLOW_ONE = build_request(Tag66(UNKNOWN, PAYLOAD))
FAILED = b"\x43\xff"


@in_trio
async def test_a_store_of_which_every_place_is_taken_holds_up_no_other(
    tmp_path: Path, key: PemKey
) -> None:
    slow = SlowKey(key)
    answers = []

    async def ask(device: Device) -> None:
        answers.append(await device.request(ASK_THE_SLOW_ONE))

    async with (
        served(tmp_path) as device,
        running(device, slow, key, at_once=2),
        trio.open_nursery() as nursery,
    ):
        for _ in range(10):
            nursery.start_soon(ask, device)
        await slow.wait_started()
        for _ in range(10):
            assert await unwrap(device, key.signature, await wrap(device, key.signature)) == PAYLOAD
        assert answers == []
        assert slow.calls <= 2
        slow.may_go_on.set()
    assert [len(answer) > len(FAILED) for answer in answers] == [True] * 10
    assert slow.calls == 10


@in_trio
async def test_what_a_store_has_not_done_by_the_deadline_fails_then_and_its_result_is_lost(
    tmp_path: Path, key: PemKey, caplog: pytest.LogCaptureFixture
) -> None:
    slow = SlowKey(key)
    async with served(tmp_path) as device, running(device, slow, key, deadline=0.5):
        assert await device.request(ASK_THE_SLOW_ONE) == FAILED
        assert "the key store has not done it within 0.5 s" in caplog.text
        slow.may_go_on.set()
        # Its place in the store is the last to become free: then it has written what it will.
        assert len(await wrap(device, UNKNOWN)) == 256
        totals = device.status()["totals"]
        assert (totals["responses"], totals["responses_refused"]) == (2, 0)


@in_trio
async def test_a_store_that_hangs_holds_its_places_and_no_more(tmp_path: Path, key: PemKey) -> None:
    slow = SlowKey(key)
    async with served(tmp_path) as device, running(device, slow, at_once=2, deadline=0.05):
        before = threading.active_count()
        for _ in range(6):
            assert await device.request(ASK_THE_SLOW_ONE) == FAILED
        assert slow.calls == 2
        # Two that hang, and what trio keeps for the calls on the device.
        assert threading.active_count() <= before + 2 + 2
        slow.may_go_on.set()
        while True:
            with contextlib.suppress(DeviceError):
                if len(await wrap(device, UNKNOWN)) == 256:
                    break


@in_trio
async def test_requests_that_waited_too_long_for_a_place_are_not_worked_on_later(
    tmp_path: Path, key: PemKey
) -> None:
    slow = SlowKey(key)
    async with served(tmp_path) as device, running(device, slow, at_once=1, deadline=0.1):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(device.request, ASK_THE_SLOW_ONE)
        slow.may_go_on.set()
        while True:
            answer = await device.request(ASK_THE_SLOW_ONE)
            if answer != FAILED:
                break
        assert slow.calls == 2


class PlainKey(Key):
    """As little as a key module may make."""

    signature = UNKNOWN

    def encrypt(self, payload: bytes) -> bytes:
        return payload[::-1]

    def decrypt(self, ciphertext: bytes) -> bytes:
        return ciphertext[::-1]

    def describe(self) -> str:
        return "plain"


@in_trio
async def test_a_key_that_names_no_store_is_served(tmp_path: Path) -> None:
    async with served(tmp_path) as device, running(device, PlainKey()):
        assert await unwrap(device, UNKNOWN, await wrap(device, UNKNOWN)) == PAYLOAD


@in_trio
async def test_with_too_many_under_way_a_request_fails_at_once(
    tmp_path: Path, key: PemKey, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(daemon_module, "UNDER_WAY_MAX", 1)
    slow = SlowKey(key)
    async with (
        served(tmp_path) as device,
        running(device, slow, key),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(wrap, device, UNKNOWN)
        await slow.wait_started()
        assert await device.request(build_request(Tag66(key.signature, PAYLOAD))) == FAILED
        assert "1 requests are under way already" in caplog.text
        slow.may_go_on.set()


@in_trio
async def test_an_answer_that_comes_too_late_does_no_harm(
    tmp_path: Path, key: PemKey, caplog: pytest.LogCaptureFixture
) -> None:
    slow = SlowKey(key)
    async with served(tmp_path) as device, running(device, slow, at_once=1):
        with pytest.raises(DeviceError) as failed:
            await device.request(ASK_THE_SLOW_ONE, timeout=0.05)
        assert failed.value.errno == errno.ENOMSG
        await slow.wait_started()
        slow.may_go_on.set()
        assert len(await wrap(device, UNKNOWN)) == 256
        assert device.status()["totals"]["responses_refused"] == 1
    assert "came too late" in caplog.text


@in_trio
async def test_a_daemon_that_stops_fails_what_it_cannot_finish(
    tmp_path: Path, key: PemKey, short_grace: None
) -> None:
    slow = SlowKey(key)
    answers = []

    async def ask(device: Device) -> None:
        answers.append(await device.request(ASK_THE_SLOW_ONE))

    async with served(tmp_path) as device:
        async with trio.open_nursery() as nursery, running(device, slow, at_once=1):
            nursery.start_soon(ask, device)
            nursery.start_soon(ask, device)
            await slow.wait_started()
        assert answers == [FAILED, FAILED]
        async with running(device, key):
            await wrap(device, key.signature)
        slow.may_go_on.set()


@in_trio
async def test_a_daemon_that_stops_finishes_what_takes_a_moment(
    tmp_path: Path, key: PemKey
) -> None:
    slow = SlowKey(key)
    wrapped = []

    async def ask(device: Device) -> None:
        wrapped.append(await wrap(device, UNKNOWN))

    async with (
        served(tmp_path) as device,
        trio.open_nursery() as requests,
        Daemon(device.path, [slow]) as daemon,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(daemon.run)
        requests.start_soon(ask, device)
        await slow.wait_started()
        nursery.cancel_scope.cancel()
        slow.may_go_on.set()
    assert await trio.to_thread.run_sync(lambda: [slow.decrypt(each) for each in wrapped]) == [
        PAYLOAD
    ]
