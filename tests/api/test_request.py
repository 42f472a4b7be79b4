import errno
import os
from pathlib import Path

import pytest
import trio
import trio.testing

from ecryptfs_cuse.serve import (
    Device,
    DeviceError,
    IdentityRule,
    Parameters,
    Transport,
    serve,
)
from ecryptfs_cuse.wire.errors import BuildError
from tests.api.conftest import StartDaemon
from tests.client import PATIENCE
from tests.conftest import ClientFactory
from tests.device.traffic import message_of, refused

USER = 1000


async def wait_free(device: Device) -> None:
    """Wait until no message context is in use."""
    with trio.fail_after(PATIENCE):
        while device.status()["contexts"]["in_use"]:
            await trio.sleep(0.01)


def test_the_daemon_of_another_process_answers(
    mountpoint: Path, transport: str, daemon_at: StartDaemon
) -> None:
    async def main() -> None:
        async with (
            serve(mountpoint, transport=Transport(transport)) as device,
            trio.open_nursery() as nursery,
        ):
            daemon = await daemon_at(device.path)
            nursery.start_soon(daemon.reverse, 20)
            for number in range(20):
                assert (
                    await device.request(b"question %d" % number) == (b"question %d" % number)[::-1]
                )

    trio.run(main)


def test_a_user_may_have_as_many_requests_under_way_as_the_limit_says(mountpoint: Path) -> None:
    async def main() -> None:
        async with serve(mountpoint, contexts_per_user=1) as device, trio.open_nursery() as nursery:
            descriptor = await trio.to_thread.run_sync(os.open, device.path, os.O_RDWR)
            nursery.start_soon(device.request, b"the only one")
            await trio.testing.wait_all_tasks_blocked()
            with refused(errno.ENOMEM):
                await device.request(b"one more")
            assert device.status()["contexts"]["per_user"] == 1
            nursery.cancel_scope.cancel()
        os.close(descriptor)

    trio.run(main)


def test_a_limit_below_1_is_refused_before_anything_is_mounted(mountpoint: Path) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="contexts_per_user"):
            async with serve(mountpoint, contexts_per_user=0):
                pass

    trio.run(main)


@pytest.mark.parametrize(
    ("rule", "outcome"),
    [(IdentityRule.USER_NAMESPACE, errno.ENOTCONN), (IdentityRule.GLOBAL_UID, errno.ENOMSG)],
)
def test_a_users_daemon_in_another_user_namespace_is_asked_by_uid_alone(
    mountpoint: Path, transport: str, clients: ClientFactory, rule: IdentityRule, outcome: int
) -> None:
    async def main() -> None:
        async with serve(
            mountpoint,
            options=["allow_other"],
            mode=0o666,
            transport=Transport(transport),
            identity=rule,
        ) as device:
            inside = await trio.to_thread.run_sync(clients, USER, "unshare", "-U")
            await trio.to_thread.run_sync(inside.call, "os.open", device.path, os.O_RDWR)
            with refused(outcome):
                await device.request(b"are you there?", uid=USER, timeout=0)

    trio.run(main)


def test_a_hundred_requests_wait_together(
    mountpoint: Path, transport: str, daemon_at: StartDaemon
) -> None:
    async def main() -> None:
        answers = {}

        async def ask(device: Device, number: int) -> None:
            answers[number] = await device.request(b"%d" % number)

        async with serve(
            mountpoint, Parameters(message_buf_len=100), transport=Transport(transport)
        ) as device:
            daemon = await daemon_at(device.path)
            async with trio.open_nursery() as nursery:
                for number in range(100):
                    nursery.start_soon(ask, device, number)
                packets = [await daemon.read() for _ in range(100)]
                for packet in packets:
                    await daemon.respond(packet, b"answer to " + message_of(packet).data)
        assert answers == {number: b"answer to %d" % number for number in range(100)}

    trio.run(main)


def test_uid_says_whose_daemon_is_asked(
    mountpoint: Path, transport: str, daemon_at: StartDaemon
) -> None:
    async def main() -> None:
        async with (
            serve(
                mountpoint, options=["allow_other"], mode=0o666, transport=Transport(transport)
            ) as device,
            trio.open_nursery() as nursery,
        ):
            with refused(errno.ENOTCONN):
                await device.request(b"anybody?", uid=USER)
            daemon = await daemon_at(device.path, USER)
            nursery.start_soon(daemon.reverse)
            assert await device.request(b"abc", uid=USER) == b"cba"
            with refused(errno.ENOTCONN):
                await device.request(b"root has none")

    trio.run(main)


def test_a_request_beyond_the_table_is_refused_and_one_that_is_too_long(
    mountpoint: Path, transport: str, daemon_at: StartDaemon
) -> None:
    async def main() -> None:
        async with (
            serve(
                mountpoint, Parameters(message_buf_len=1), transport=Transport(transport)
            ) as device,
            trio.open_nursery() as nursery,
        ):
            daemon = await daemon_at(device.path)
            with pytest.raises(BuildError):
                await device.request(bytes(9000))
            nursery.start_soon(device.request, b"the only one")
            packet = await daemon.read()
            with refused(errno.ENOMEM):
                await device.request(b"one too many")
            await daemon.respond(packet, b"")

    trio.run(main)


def test_a_request_waits_as_long_as_the_parameter_says_or_the_call(
    mountpoint: Path, transport: str, daemon_at: StartDaemon
) -> None:
    async def main() -> None:
        for parameter, timeout in ((0.1, None), (60, 0.1), (0, 0.1), (60, 0), (0, None)):
            async with serve(
                mountpoint,
                Parameters(message_wait_timeout=parameter),
                transport=Transport(transport),
            ) as device:
                await daemon_at(device.path)
                started = trio.current_time()
                with refused(errno.ENOMSG):
                    await device.request(b"anybody?", timeout=timeout)
                waited = trio.current_time() - started
                assert (parameter if timeout is None else timeout) <= waited < PATIENCE
                assert device.status()["contexts"]["in_use"] == []
                assert device.status()["totals"]["timeouts"] == 1

    trio.run(main)


def test_a_short_wait_does_not_end_behind_a_long_one(
    mountpoint: Path, transport: str, daemon_at: StartDaemon
) -> None:
    async def main() -> None:
        async with (
            serve(mountpoint, transport=Transport(transport)) as device,
            trio.open_nursery() as nursery,
        ):
            daemon = await daemon_at(device.path)
            nursery.start_soon(lambda: device.request(b"long", timeout=60))
            packet = await daemon.read()
            with trio.fail_after(PATIENCE), refused(errno.ENOMSG):
                await device.request(b"short", timeout=0.05)
            await daemon.respond(packet, b"")

    trio.run(main)


def test_a_request_that_was_cancelled_can_still_be_answered(
    mountpoint: Path, transport: str, daemon_at: StartDaemon
) -> None:
    async def main() -> None:
        async with serve(mountpoint, transport=Transport(transport)) as device:
            daemon = await daemon_at(device.path)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(device.request, b"never mind")
                    packet = await daemon.read()
                    scope.cancel()
            assert scope.cancelled_caught
            assert len(device.status()["contexts"]["in_use"]) == 1
            await daemon.respond(packet, b"too late")
            assert device.status()["contexts"]["in_use"] == []
            assert device.status()["totals"]["responses"] == 1

    trio.run(main)


def test_wherever_a_request_is_cancelled_its_context_is_free_after_the_time_out(
    mountpoint: Path, transport: str, daemon_at: StartDaemon
) -> None:
    async def main() -> None:
        async with serve(mountpoint, transport=Transport(transport)) as device:
            await daemon_at(device.path)
            for steps in range(10):
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(lambda: device.request(b"?", timeout=0.05))
                        for _ in range(steps):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()
                assert scope.cancelled_caught
            await wait_free(device)

    trio.run(main)


def test_a_request_cancelled_as_its_answer_arrives_leaves_nothing_behind(
    mountpoint: Path, transport: str, daemon_at: StartDaemon
) -> None:
    async def main() -> None:
        async with serve(mountpoint, transport=Transport(transport)) as device:
            daemon = await daemon_at(device.path)
            for steps in range(10):
                async with trio.open_nursery() as nursery:
                    scope = trio.CancelScope()

                    async def ask(scope: trio.CancelScope) -> None:
                        with scope:
                            assert await device.request(b"quick") == b"kciuq"

                    nursery.start_soon(ask, scope)
                    await daemon.reverse()
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
            assert device.status()["contexts"]["in_use"] == []

    trio.run(main)


def test_an_error_says_what_happened(mountpoint: Path, transport: str) -> None:
    async def main() -> None:
        async with serve(mountpoint, transport=Transport(transport)) as device:
            with pytest.raises(DeviceError, match="this user has no daemon"):
                await device.request(b"anybody?")

    trio.run(main)
