"""Lines that nobody has to wait for, on descriptors of every kind."""

import logging
import os
import re
import select
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecryptfs_cuse.cli.log import QUEUED_MAX, LineWriter, LogHandler, in_one_line
from tests.cli.processes import ending, unmount, wait_mounted
from tests.client import PATIENCE
from tests.conftest import ClientFactory, let_everyone_in
from tests.device.traffic import PACKET_MAX, read_packet, respond
from tests.mounted import COMMAND, is_mountpoint

LINE = b"x" * 1023 + b"\n"
USER = 1000


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe, the reader's first."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def fill(pipe: int) -> None:
    """Leave no room in a pipe for a single octet."""
    os.set_blocking(pipe, False)
    for size in (4096, 1):
        try:
            while True:
                os.write(pipe, b"." * size)
        except BlockingIOError:
            pass
    os.set_blocking(pipe, True)


def read_until(descriptor: int, expected: bytes) -> bytes:
    """What can be read, until ``expected`` is in it."""
    found = b""
    while expected not in found:
        assert select.select([descriptor], [], [], PATIENCE)[0], f"only {found[-200:]!r} came"
        found += os.read(descriptor, 1 << 16)
    return found


def test_lines_are_written_in_order(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1])
    for number in range(100):
        writer.add(b"%d\n" % number)
    writer.flush(PATIENCE)
    assert os.read(pipe[0], 1 << 16).split() == [b"%d" % number for number in range(100)]


def test_nobody_waits_for_a_full_pipe_and_each_line_is_written_or_counted_as_lost(
    pipe: tuple[int, int],
) -> None:
    fill(pipe[1])
    writer = LineWriter(pipe[1])
    added = 2 * QUEUED_MAX // len(LINE)
    for _ in range(added):
        writer.add(LINE)
    found, lost = b"", 0
    while found.count(LINE[:-1]) + lost < added:  # the loss may be told in parts
        found += read_until(pipe[0], b"\n")
        told = re.findall(rb"^ecryptfs-cuse: \.\.\. (\d+) lines? w.+\n", found, re.MULTILINE)
        lost = sum(map(int, told))
    assert 0 < lost < added
    assert found.count(LINE[:-1]) == added - lost


def test_the_loss_is_told_where_it_was(pipe: tuple[int, int]) -> None:
    fill(pipe[1])
    writer = LineWriter(pipe[1])
    for _ in range(2 * QUEUED_MAX // len(LINE)):
        writer.add(LINE)
    told = read_until(pipe[0], LINE)  # there is room in the queue from here on
    writer.add(b"after\n")
    told += read_until(pipe[0], b"after\n")
    assert re.search(
        rb"x\necryptfs-cuse: \.\.\. \d+ lines were lost: the log was full\nafter", told
    )


@pytest.mark.parametrize("kind", ["reader gone", "closed", "full disk", "read only"])
def test_a_log_that_cannot_be_written_is_no_error_and_nobody_waits(kind: str) -> None:
    reader, pipe = os.pipe()
    if kind == "full disk":
        os.close(pipe)
        pipe = os.open("/dev/full", os.O_WRONLY)
    elif kind == "read only":
        os.close(pipe)
        pipe = os.open(os.devnull, os.O_RDONLY)
    os.close(reader)
    if kind == "closed":
        os.close(pipe)
    writer = LineWriter(pipe)
    for _ in range(3):
        writer.add(b"a line\n")
        writer.flush(PATIENCE)
    if kind != "closed":
        os.close(pipe)


def test_a_disk_with_room_again_is_told_what_was_lost(tmp_path: Path) -> None:
    log = os.open("/dev/full", os.O_WRONLY)
    writer = LineWriter(log)
    writer.add(b"before\n")
    writer.flush(PATIENCE)
    with open(tmp_path / "log", "wb") as file:
        os.dup2(file.fileno(), log)
    writer.add(b"after\n")
    writer.flush(PATIENCE)
    os.close(log)
    found = (tmp_path / "log").read_bytes()
    assert found == b"ecryptfs-cuse: ... 1 line was lost: the log was full\nafter\n"


def test_a_descriptor_that_others_have_made_nonblocking_loses_nothing(
    pipe: tuple[int, int],
) -> None:
    fill(pipe[1])
    os.set_blocking(pipe[1], False)
    writer = LineWriter(pipe[1])
    writer.add(b"a line\n")
    assert read_until(pipe[0], b"\n").endswith(b".a line\n")


def test_what_cannot_be_formatted_is_told_and_raises_nothing(pipe: tuple[int, int]) -> None:
    handler = LogHandler(LineWriter(pipe[1]))
    handler.handle(logging.makeLogRecord({"msg": "%d of them", "args": ("many",)}))
    handler.flush()
    assert b"'%d of them': TypeError: " in os.read(pipe[0], 4096)


def test_an_error_in_one_line_names_its_place() -> None:
    try:
        int("three\nlines\n")
    except ValueError as error:
        line = in_one_line(error)
    assert re.fullmatch(r"ValueError: invalid literal .* \(test_log\.py:\d+\)", line)


SCRIPT = """
import logging, os, sys, warnings
from ecryptfs_cuse.cli.log import log_to_standard_error, flush_log
log_to_standard_error({verbose})
logger = logging.getLogger()
{body}
"""


def run_script(body: str, verbose: int = 0, stderr: int = subprocess.PIPE) -> str:
    """What a process says on its log, to its end."""
    done = subprocess.run(
        # Python 3.12 and later warn of a fork beside threads; this one is meant.
        [sys.executable, "-Wignore:This process", "-c", SCRIPT.format(verbose=verbose, body=body)],
        stderr=stderr,
        timeout=PATIENCE,
        check=True,
    )
    return (done.stderr or b"").decode()


def test_what_is_queued_at_the_end_is_written() -> None:
    assert run_script("for n in range(500): logger.warning('line %d', n)").count("\n") == 500


def test_a_log_that_nobody_reads_does_not_keep_a_process_alive(pipe: tuple[int, int]) -> None:
    fill(pipe[1])
    run_script("for n in range(5000): logger.warning('line %d', n)", stderr=pipe[1])


def test_a_child_has_a_log_as_its_parent_has() -> None:
    body = "logger.warning('parent'); flush_log()\nif os.fork() == 0: logger.warning('child')"
    assert run_script(f"{body}\nelse: os.wait()") == "ecryptfs-cuse: parent\necryptfs-cuse: child\n"


def test_what_python_itself_would_print_is_logged() -> None:
    said = run_script(
        "class Faulty:\n    def __del__(self): raise ValueError('in the end')\n"
        "warnings.warn('take care'); x = Faulty(); del x\n"
        "import threading; t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()"
    )
    warned, ignored, ended = said.splitlines()
    assert warned.startswith("ecryptfs-cuse: ")
    assert warned.endswith("UserWarning: take care")
    assert ignored.startswith("ecryptfs-cuse: error ignored: ValueError: in the end (")
    assert ended.startswith("ecryptfs-cuse: a thread has ended: ZeroDivisionError: ")


def test_a_traceback_is_logged_where_everything_is_asked_for() -> None:
    body = "try: 1 / 0\nexcept ZeroDivisionError: logger.exception('it failed')"
    assert "Traceback" in run_script(body, verbose=2)
    assert run_script(body, verbose=1).startswith("ecryptfs-cuse: it failed: ZeroDivisionError: ")


@pytest.fixture(params=["pipe", "terminal"])
def unread(request: pytest.FixtureRequest) -> Iterator[int]:
    """A pipe without room, or a terminal that was stopped with Ctrl-S."""
    if request.param == "pipe":
        other, end = os.pipe()
        fill(end)
    else:
        other, end = os.openpty()
        termios.tcflow(end, termios.TCOOFF)
    yield end
    os.close(other)
    os.close(end)


def test_a_server_whose_log_nobody_reads_serves_and_ends(
    tmp_path: Path, unread: int, clients: ClientFactory
) -> None:
    where = tmp_path / "mount"
    where.mkdir()
    let_everyone_in(where)
    process = subprocess.Popen(
        [*COMMAND, "mount", str(where), "-v", "--allow-other", "--mode", "0666"],
        stdout=subprocess.DEVNULL,
        stderr=unread,
    )
    with ending(process, where):
        wait_mounted(process, where)
        device, request = str(where / "dev" / "ecryptfs"), str(where / "control" / "request")
        user, daemon, requester = clients(USER), clients(), clients()
        # More than the log can take.
        assert user.call("reopen", device, QUEUED_MAX // 64) == 0
        descriptor = daemon.call("os.open", device, os.O_RDWR)
        asked = requester.call("os.open", request, os.O_RDWR)
        requester.call("os.write", asked, b"abc")
        respond(daemon, descriptor, read_packet(daemon, descriptor), b"cba")
        assert requester.call("os.read", asked, PACKET_MAX) == b"cba"


def test_a_server_whose_line_nobody_reads_serves_and_ends(
    tmp_path: Path, unread: int, clients: ClientFactory
) -> None:
    process = subprocess.Popen(
        [*COMMAND, "mount", str(tmp_path)], stdout=unread, stderr=subprocess.DEVNULL
    )
    with ending(process, tmp_path):
        wait_mounted(process, tmp_path)
        clients().call("os.open", str(tmp_path / "dev" / "ecryptfs"), os.O_RDWR)


def test_in_the_background_a_server_whose_line_nobody_reads_is_ready_all_the_same(
    tmp_path: Path, unread: int
) -> None:
    command = [*COMMAND, "mount", str(tmp_path), "--background"]
    done = subprocess.run(command, stdout=unread, stderr=unread, timeout=PATIENCE, check=False)
    try:
        assert done.returncode == 0
        assert is_mountpoint(tmp_path)
    finally:
        unmount(tmp_path)


def test_an_error_that_nobody_reads_ends_all_the_same(tmp_path: Path, unread: int) -> None:
    command = [*COMMAND, "mount", str(tmp_path / "missing")]
    done = subprocess.run(command, stdout=unread, stderr=unread, timeout=PATIENCE, check=False)
    assert done.returncode == 32
