"""Other system calls that move data to or from the open device."""

import errno
from struct import pack

from tests.conformance.case import case, cases
from tests.conformance.daemon import BLOCKS, PACKET_MAX, Daemon, Question, attempt_blocking
from tests.conformance.system import System, Value

HELO = bytes.fromhex("6400000000")

_REGULAR = "regular-file"
_COPYING = "copying-calls"
_ASYNCHRONOUS = "asynchronous-io"


def _pipe(daemon: Daemon, octets: bytes = b"") -> tuple[int, int]:
    reading, writing = daemon.client.call("os.pipe")
    if octets:
        daemon.client.call("os.write", writing, octets)
    return reading, writing


def _file(daemon: Daemon, octets: bytes) -> int:
    descriptor: int = daemon.client.call("os.memfd_create", "file")
    daemon.client.call("os.write", descriptor, octets)
    daemon.client.call("os.lseek", descriptor, 0, 0)
    return descriptor


def _outcome(system: System, daemon: Daemon, name: str, *arguments: object) -> Value:
    """What a call returns; it might block."""
    pending = daemon.client.start(name, *arguments)
    found = attempt_blocking(pending)
    daemon.feed(system.requester().create, pending)
    return found


@cases(
    case("splice to a pipe", "EINVAL", "os.splice", True, deviation=(_COPYING, 0)),
    case("sendfile to a file", "EINVAL", "os.sendfile", True),
    case(
        "copy_file_range to a file",
        "EINVAL",
        "os.copy_file_range",
        True,
        deviation=(_REGULAR, "EXDEV"),
    ),
    case("splice from a pipe", "EINVAL", "os.splice", False, deviation=(_COPYING, 5)),
    case("sendfile from a file", "EINVAL", "os.sendfile", False, deviation=(_COPYING, 5)),
    case(
        "copy_file_range from a file",
        "EINVAL",
        "os.copy_file_range",
        False,
        deviation=(_REGULAR, "EXDEV"),
    ),
)
def test_copying(system: System, name: str, from_device: bool) -> Value:
    with system.daemon() as daemon:
        # FUSE takes what was written for the file's size, until it is asked for.
        daemon.client.call("stat_afresh", system.device)
        if name == "os.splice":
            other = _pipe(daemon, b"" if from_device else HELO)[from_device]
        else:
            other = _file(daemon, b"" if from_device else HELO)
        source, target = (daemon.descriptor, other) if from_device else (other, daemon.descriptor)
        if name == "os.sendfile":
            return _outcome(system, daemon, name, target, source, None, len(HELO))
        return _outcome(system, daemon, name, source, target, len(HELO))


@cases(
    case("tee to a pipe", "EINVAL", True),
    case("tee from a pipe", "EINVAL", False),
)
def test_tee(system: System, from_device: bool) -> Value:
    with system.daemon() as daemon:
        other = _pipe(daemon, HELO)[from_device]
        source, target = (daemon.descriptor, other) if from_device else (other, daemon.descriptor)
        return _outcome(system, daemon, "system_call", source, "tee", target, 5, 2)


@cases(
    case("vmsplice of no segments", 0, b"", 0),
    case("vmsplice of an empty segment", 0, pack("=QQ", 0x1000, 0), 1),
    case("vmsplice of a segment", "EBADF", pack("=QQ", 0x1000, 5), 1),
)
def test_vmsplice(system: System, segments: bytes, count: int) -> Value:
    with system.daemon() as daemon:
        return daemon.call("system_call", "vmsplice", segments, count, 0)


_PREAD, _PWRITE, _FSYNC, _FDSYNC, _POLL, _NOOP = 0, 1, 2, 3, 5, 6
_POLLIN = 1


@cases(
    case(
        "io_submit of PWRITE is refused",
        "EINVAL",
        _PWRITE,
        HELO,
        0,
        deviation=(_ASYNCHRONOUS, (1, 5)),
    ),
    case(
        "io_submit of FSYNC is refused",
        "EINVAL",
        _FSYNC,
        b"",
        0,
        deviation=(_ASYNCHRONOUS, (1, -errno.EINVAL)),
    ),
    case(
        "io_submit of FDSYNC is refused",
        "EINVAL",
        _FDSYNC,
        b"",
        0,
        deviation=(_ASYNCHRONOUS, (1, -errno.EINVAL)),
    ),
    case("io_submit of NOOP is refused", "EINVAL", _NOOP, b"", 0),
    case("io_submit of POLL is taken", (1, BLOCKS), _POLL, b"", _POLLIN),
)
def test_asynchronous(system: System, opcode: int, octets: bytes, events: int) -> Value:
    with system.daemon() as daemon:
        context = daemon.client.call("aio_setup")
        arguments = (context, opcode, octets, events)
        taken = _outcome(system, daemon, "aio_submit", daemon.descriptor, *arguments)
        if taken != 1:
            daemon.client.call("aio_destroy", context)
            return taken
        result = daemon.client.start("aio_result", context)
        found = attempt_blocking(result)
        if found == BLOCKS:
            daemon.feed(system.requester().create, result)
        daemon.client.call("aio_destroy", context)
    return taken, found


@cases(case("io_submit of PREAD is refused", "EINVAL", deviation=(_ASYNCHRONOUS, 1)))
def test_asynchronous_read(system: System) -> Value:
    with system.daemon() as daemon:
        system.requester().create()
        daemon.poll(seconds=5.0)
        context = daemon.client.call("aio_setup")
        found = daemon.call("aio_submit", context, _PREAD, bytes(PACKET_MAX), 0)
        # What becomes of it differs: some kernels see the end of a file of no octets.
        count = daemon.client.call("aio_result", context) if found == 1 else 0
        octets = daemon.client.call("aio_octets")[:count] if count > 0 else daemon.read()
        daemon.answer(Question.parse(octets))
        daemon.client.call("aio_destroy", context)
    return found


@cases(case("a POLL is over when there is a message", (1, _POLLIN)))
def test_asynchronous_poll(system: System) -> Value:
    with system.daemon() as daemon:
        context = daemon.client.call("aio_setup")
        taken = daemon.call("aio_submit", context, _POLL, b"", _POLLIN)
        system.requester().create()
        found = taken, daemon.client.call("aio_result", context)
        daemon.answer(daemon.question())
        daemon.client.call("aio_destroy", context)
    return found


@cases(case("a POLL under way keeps the daemon, until it is cancelled", (1, "EINVAL", "OK")))
def test_close_with_asynchronous_poll(system: System) -> Value:
    daemon = system.daemon()
    context = daemon.client.call("aio_setup")
    taken = daemon.call("aio_submit", context, _POLL, b"", _POLLIN)
    daemon.close()
    while_held = system.opened(process=2)
    daemon.client.call("aio_destroy", context)
    return taken, while_held, system.opened(process=2)
