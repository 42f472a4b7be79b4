"""read(2): what blocks, and what ends it. A read that blocks is given a message afterwards."""

import fcntl
import os
import signal
import subprocess
import time
from pathlib import Path

from tests.conformance.case import case, cases
from tests.conformance.daemon import BLOCKS, PACKET_MAX, Question, attempt_blocking
from tests.conformance.system import Client, Daemon, System, Value

HELO = bytes.fromhex("6400000000")

_SHORT = 0.15  # seconds: for what blocks everywhere

_NO_INTERRUPT = "pyfuse3-interrupt"
_LOCK = "pyfuse3-position-lock"


def _feed(system: System, daemon: Daemon, *reads: object) -> None:
    daemon.feed(system.requester().create, *reads)  # type: ignore[arg-type]


@cases(
    case("with nothing to read, a read blocks", BLOCKS, 1000),
    case("with nothing to read, a read of one octet blocks", BLOCKS, 1),
    case("a read of no octets blocks too", BLOCKS, 0, deviation=("empty-read", b"")),
)
def test_nothing_to_read(system: System, count: int) -> Value:
    with system.daemon() as daemon:
        read = daemon.start_read(count)
        found = attempt_blocking(read)
        _feed(system, daemon, read)
    return found


_PACKET = 52
_SMALL = (1, 4, 5, 6, 7, 14, 51)


@cases(
    *(case(f"with {count} octets of room, it gets none", 0, count) for count in _SMALL),
    case("with exactly as much room as is needed, it gets the message", _PACKET, _PACKET),
    case("with one octet more, it gets the message", _PACKET, _PACKET + 1),
    case("with a page, it gets the message", _PACKET, PACKET_MAX),
    case("with a megabyte, it gets the message", _PACKET, 1 << 20),
)
def test_blocked_read_and_a_message(system: System, count: int) -> Value:
    with system.daemon() as daemon:
        read = daemon.start_read(count)
        read.wait_blocked()
        _feed(system, daemon, read)
        return len(read.result())


@cases(
    case("O_NONBLOCK of open", BLOCKS, os.O_RDWR | os.O_NONBLOCK, None),
    case("O_NONBLOCK of open, reading only", BLOCKS, os.O_RDONLY | os.O_NONBLOCK, None),
    case("O_NONBLOCK of F_SETFL", BLOCKS, os.O_RDWR, os.O_NONBLOCK),
    case("no O_NONBLOCK any longer", BLOCKS, os.O_RDWR | os.O_NONBLOCK, 0),
)
def test_it_blocks_whether_or_not_it_may(system: System, flags: int, later: int | None) -> Value:
    with system.daemon(flags=flags) as daemon:
        if later is not None:
            daemon.call("fcntl.fcntl", fcntl.F_SETFL, later)
        read = daemon.start_read()
        found = attempt_blocking(read, _SHORT)
        if flags & os.O_ACCMODE == os.O_RDONLY:
            system.requester().create()
            question = Question.parse(read.result())
            # It cannot answer, but whoever opens the device next may.
            daemon.close()
            with system.daemon() as successor:
                successor.answer(question)
        else:
            _feed(system, daemon, read)
    return found


@cases(
    case("a signal ends a read", b"", False, pyfuse3=(_NO_INTERRUPT, BLOCKS)),
    case("a signal with SA_RESTART too", b"", True, pyfuse3=(_NO_INTERRUPT, BLOCKS)),
)
def test_signal(system: System, restart: bool) -> Value:
    with system.daemon() as daemon:
        daemon.client.call("handle_signal", signal.SIGUSR2, restart)
        read = daemon.start_read()
        read.wait_blocked()
        daemon.client.call("signal_thread", read.thread, signal.SIGUSR2)
        found = attempt_blocking(read)
        _feed(system, daemon, read)
    return found


@cases(
    case(
        "after a signal, the next read blocks, and has its message",
        (0, _PACKET),
        pyfuse3=(_NO_INTERRUPT, (_PACKET, _PACKET)),
    )
)
def test_read_after_a_signal(system: System) -> Value:
    with system.daemon() as daemon:
        first = daemon.start_read()
        first.wait_blocked()
        daemon.client.call("signal_thread", first.thread, signal.SIGUSR1)
        if system.name == "pyfuse3":
            _feed(system, daemon, first)
        returned = len(first.result())  # while it is still there, another reader would get nothing
        second = daemon.start_read()
        second.wait_blocked()
        _feed(system, daemon, second)
        return returned, len(second.result())


@cases(
    case("SIGCHLD, which is ignored unless handled, does not", BLOCKS, signal.SIGCHLD),
    case("SIGWINCH, which is ignored unless handled, does not", BLOCKS, signal.SIGWINCH),
    case("SIGURG, which is ignored unless handled, does not", BLOCKS, signal.SIGURG),
    case("SIGCONT to what runs does not", BLOCKS, signal.SIGCONT),
    case("SIGHUP that is ignored does not", BLOCKS, signal.SIGHUP),
)
def test_ignored_signal(system: System, number: signal.Signals) -> Value:
    with system.daemon() as daemon:
        if number == signal.SIGHUP:
            daemon.client.call("signal.signal", number, signal.SIG_IGN)
        read = daemon.start_read()
        read.wait_blocked()
        daemon.client.call("signal_thread", read.thread, number)
        found = attempt_blocking(read, _SHORT)
        _feed(system, daemon, read)
        if number == signal.SIGHUP:
            daemon.client.call("signal.signal", number, signal.SIG_DFL)
    return found


def _wait_stopped(client: Client) -> None:
    """Wait until each thread is stopped; not long, as what blocks for good never is."""
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        paths = Path(f"/proc/{client.pid}/task").glob("*/stat")
        if {path.read_text().rpartition(")")[2].split()[0] for path in paths} == {"T"}:
            return
        time.sleep(0.01)


@cases(case("SIGSTOP and SIGCONT end a read", b"", pyfuse3=(_NO_INTERRUPT, BLOCKS)))
def test_stop_and_continue(system: System) -> Value:
    client = system.new_client()
    with Daemon(client, system.device) as daemon:
        read = daemon.start_read()
        read.wait_blocked()
        client.kill(signal.SIGSTOP)
        _wait_stopped(client)
        client.kill(signal.SIGCONT)
        found = attempt_blocking(read)
        _feed(system, daemon, read)
    return found


@cases(
    case(
        "SIGKILL ends a reader, and its user can open at once",
        (-9, "OK"),
        pyfuse3=(_NO_INTERRUPT, (BLOCKS, "EINVAL")),
    )
)
def test_sigkill(system: System) -> Value:
    client = system.new_client()
    Daemon(client, system.device).start_read().wait_blocked()
    client.kill()
    ended: Value = BLOCKS
    try:
        ended = client.wait(1.0)
    except subprocess.TimeoutExpired:
        ended = BLOCKS
    return ended, system.opened()


@cases(
    case(
        "closed during a read, which a signal ends: so long it is registered",
        (BLOCKS, "EINVAL", b"", "OK"),
        True,
        pyfuse3=(_NO_INTERRUPT, (BLOCKS, "EINVAL", _PACKET, "OK")),
    ),
    case(
        "closed during a read, which a message ends: so long it is registered",
        (BLOCKS, "EINVAL", _PACKET, "OK"),
        False,
    ),
)
def test_close_while_reading(system: System, by_signal: bool) -> Value:
    daemon = system.daemon()
    read = daemon.start_read()
    read.wait_blocked()
    daemon.close()
    found = attempt_blocking(read, _SHORT), system.opened(process=2)
    octets: Value = BLOCKS
    if by_signal:
        daemon.client.call("signal_thread", read.thread, signal.SIGUSR1)
        octets = attempt_blocking(read)
    if octets != BLOCKS:
        return *found, octets, system.opened(process=2)
    asked = system.requester().create()
    question = Question.parse(read.result())
    # Whoever opens it next may still answer.
    with system.daemon() as successor:
        successor.answer(question)
    assert asked.outcome == "OK"
    return *found, len(question.data) + 14, system.opened(process=2)


@cases(
    case("HELO is taken meanwhile", 5, HELO, pyfuse3=(_LOCK, BLOCKS)),
    case("QUIT is taken meanwhile", 5, b"e\0\0\0\0", pyfuse3=(_LOCK, BLOCKS)),
    case(
        "a RESPONSE to nothing is refused meanwhile",
        "EINVAL",
        bytes.fromhex("670000000109000000000100000078"),
        pyfuse3=(_LOCK, BLOCKS),
    ),
)
def test_write_while_reading(system: System, octets: bytes) -> Value:
    with system.daemon() as daemon:
        read = daemon.start_read()
        read.wait_blocked()
        writing = daemon.client.start("os.write", daemon.descriptor, octets)
        found = attempt_blocking(writing)
        assert not read.is_done
        _feed(system, daemon, read)
        attempt_blocking(writing)
    return found


@cases(
    case("a good RESPONSE is taken meanwhile", (36, "OK"), pyfuse3=(_LOCK, (BLOCKS, "EIO"))),
)
def test_response_while_reading(system: System) -> Value:
    with system.daemon() as daemon:
        asked = system.requester().create()
        question = daemon.question()
        read = daemon.start_read()
        read.wait_blocked()
        writing = daemon.client.start("os.write", daemon.descriptor, question.response())
        found = attempt_blocking(writing), asked.outcome
        _feed(system, daemon, read)
        attempt_blocking(writing)
    return found
