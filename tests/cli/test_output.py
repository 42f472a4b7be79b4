"""Standard output that takes nothing: a sentence, and not success."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.mounted import MountedDevice, run_command

_ANSWERING = r"""exec 9<>"$0"
(until printf 'g\0\0\0\1\14\0\0\0\0\4\0\0\0abcd' >&9; do sleep 0.01; done) 2>/dev/null &
exec "$@" >/dev/full"""
"""A daemon, which answers the first request unread, and the requester."""


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[MountedDevice]:
    device = MountedDevice(tmp_path / "mount", "--message-wait-timeout", "60")
    try:
        yield device
        device.stop()
    finally:
        device.clean_up()


def test_what_nobody_can_read_is_a_failure(mounted: MountedDevice) -> None:
    where = ("--mount", str(mounted.mountpoint))
    full = "Error: cannot write to standard output: No space left on device\n"
    unwritable = "Error: cannot write to standard output: Bad file descriptor\n"
    for arguments, redirection, said in (
        ((), ">&-", unwritable),
        ((), ">/dev/full", full),
        (("--json",), ">/dev/full", full),
        (("--json",), "1</dev/null", unwritable),
    ):
        shell = ("sh", "-c", f'exec "$@" {redirection}', "sh")
        done = run_command("status", *where, *arguments, prefix=shell)
        assert (done.returncode, done.stderr) == (1, said)
    shell = ("sh", "-c", _ANSWERING, mounted.path)
    done = run_command("request", "raw", *where, "42", prefix=shell)
    assert (done.returncode, done.stderr) == (1, full)


def test_a_user_who_has_too_many_files_open_is_told_so(mounted: MountedDevice) -> None:
    where = ("--mount", str(mounted.mountpoint))
    status = mounted.mountpoint / "control" / "status"
    with ExitStack() as stack:
        for _ in range(32):
            stack.enter_context(status.open())
        done = run_command("status", *where)
    where_it_is = f"on the device at {mounted.mountpoint}"
    said = f"Error: you have too many files open {where_it_is}: close some\n"
    assert (done.returncode, done.stderr) == (1, said)
