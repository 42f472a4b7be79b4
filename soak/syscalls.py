"""Any system call with any argument, on every file of the tree.

A process makes 300 calls. Arguments are mostly such as a call can use, because only those get far;
the others are nasty. An alarm interrupts what waits; what cannot be interrupted is killed.
"""

import mmap
import os
import random
import resource
import signal
from collections.abc import Callable
from contextlib import suppress
from struct import Struct

from soak.calls import CALLS, call
from soak.hanging import alone
from soak.ledger import Count, Ledger
from soak.memory import PAGE, get, put, spacious
from soak.place import Place
from soak.vicious import MIB
from tests.device.traffic import HELO

CALLS_OF_A_PROCESS = 300

_ALARM_SECONDS = 0.001
_LIFE_SECONDS = 5.0
_ADDRESS_SPACE = 1 << 31
_HIGH_FD = 200
_AT_FDCWD = -100

_NAMESPACES = (0x00020000, 0x10000000, 0x10020000, 0x02000000, 0x04000000, 0x08000000, 0x80)
_IOCTLS = (
    *(0x541B, 0x5421, 0x5452, 0x5460, 0x5450, 0x5451, 1, 2, 0x5401, 0x5412),
    *(0x40049409, 0x4020940D, 0xC0189436, 0xC020660B, 0x80086601, 0x40086602, 0x80047601),
    *(0x801C581F, 0x401C5820, 0xC0045877, 0xC0045878, 0xC0185879, 0x40806685, 0xE500, 0x8004E500),
)
_FCNTLS = (*range(17), 36, 37, 38, *range(1024, 1042))
_ADVICE = (*range(26), 100, 101)
_MAP_FIXED = 0x10
_IO_URING_SIZE = 0x10000000  # IORING_OFF_SQES


class Caller:
    """One process's means: what is open, and memory of which nobody minds what becomes of it."""

    def __init__(self, place: Place, rng: random.Random) -> None:
        self._place = place
        self._rng = rng
        self._calls = list(CALLS.values())
        self._tricks = (self._aio, self._io_uring, self._handle)
        self._desk = spacious(MIB)  # what we write, and calls read
        self._floor = spacious(MIB)  # what calls may write to, map over and take away
        self._open: list[int] = []
        self._paths = [os.fsencode(path) for path in (*place.files, *place.directories)]
        self._makers: dict[str, Callable[[], int]] = {
            "null": lambda: 0,
            "fd": self._fd,
            "high_fd": lambda: _HIGH_FD + rng.randrange(20),
            "small": lambda: rng.choice((0, 1, 1, 2, 3, 4, 8, -1)),
            "number": lambda: rng.choice((0, 1, -1, rng.getrandbits(64) - (1 << 63))),
            "flags": self._flags,
            "mapping": lambda: self._flags() & ~_MAP_FIXED | rng.choice((1, 2)),
            "size": lambda: rng.choice((0, 1, 4, 5, 14, 531, 532, PAGE, 12289, MIB, 1 << 31, -1)),
            "extent": lambda: PAGE * rng.choice((1, 1, 2, 100)),
            "page": lambda: rng.choice((0, 0, PAGE)),
            "offset": lambda: rng.choice((0, 0, 0, 1, PAGE, 1 << 31, (1 << 63) - 1, -1)),
            "offset_at": lambda: rng.choice((0, 0, self._text(bytes(8)))),
            "memory": self._memory,
            "vector": self._vector,
            "polled": lambda: self._text(Struct("=Ihh").pack(self._fd() % (1 << 32), 7, 0)),
            "path": self._path,
            "xattr": lambda: self._text(
                rng.choice((b"user.x", b"security.capability", b"system.posix_acl_access", b"fuse"))
                + b"\0"
            ),
            "moment": lambda: rng.choice((0, 1)),
            "moment_at": lambda: self._text(Struct("=QQQQ").pack(0, 1, 0, 1)),
            "lock": lambda: rng.choice(
                (0, 1, 2, rng.getrandbits(20), self._text(Struct("=hhqqi4x").pack(1, 0, 0, 0, 0)))
            ),
            "pid": os.getpid,
            "fcntl": lambda: rng.choice(_FCNTLS),
            "ioctl": lambda: rng.choice((*_IOCTLS, rng.getrandbits(32))),
            "advice": lambda: rng.choice(_ADVICE),
            "namespaces": lambda: rng.choice(_NAMESPACES),
        }

    def call(self) -> None:
        """One call."""
        if self._rng.random() < 0.05:
            self._rng.choice(self._tricks)()
            return
        chosen = self._rng.choice(self._calls)
        if len(self._open) < 4 or self._rng.random() < 0.1:
            self._open_one()
        arguments = [self._makers[kind]() for kind in chosen.arguments]
        result = call(chosen.name, *arguments)
        if chosen.name in ("openat", "openat2", "dup", "open_by_handle_at", "open_tree", "fsopen"):
            self._keep(result)
        elif chosen.name == "pidfd_open" and result > 2:
            os.close(result)

    def _open_one(self) -> None:
        path = self._rng.choice(self._place.files)
        with suppress(OSError):
            descriptor = os.open(path, self._rng.choice((os.O_RDONLY, os.O_RDWR, os.O_RDWR)))
            self._open.append(descriptor)
            if self._rng.random() < 0.5:
                os.write(descriptor, HELO)
        if self._rng.random() < 0.2:
            self._open += os.pipe2(os.O_NONBLOCK)

    def _keep(self, descriptor: int) -> None:
        if descriptor > 2:
            self._open.append(descriptor)
        if len(self._open) > 60:
            for each in self._open[:30]:
                call("close", each)
            del self._open[:30]

    def _fd(self) -> int:
        nasty = (-1, _AT_FDCWD, _HIGH_FD, 1 << 31)
        return self._rng.choice((*nasty, *self._open, *self._open))

    def _flags(self) -> int:
        bits = (1 << self._rng.randrange(32) for _ in range(self._rng.choice((0, 0, 1, 1, 2, 5))))
        return sum(set(bits))

    def _text(self, octets: bytes) -> int:
        """Some octets somewhere on the desk."""
        return put(self._desk + PAGE * self._rng.randrange(100), octets)

    def _memory(self) -> int:
        kind = self._rng.random()
        if kind < 0.1:
            return self._rng.choice((0, -1, 8, 0x7FFFFFFFF000, -(1 << 47), self._floor + MIB - 3))
        if kind < 0.5:
            return self._text(self._rng.choice((HELO, b"g", b"")) + self._rng.randbytes(64))
        return self._floor + self._rng.choice((0, 1, PAGE - 2, PAGE * self._rng.randrange(150)))

    def _vector(self) -> int:
        parts = ((self._memory(), self._makers["size"]() % (1 << 64)) for _ in range(4))
        return self._text(
            b"".join(Struct("=QQ").pack(start % (1 << 64), size) for start, size in parts)
        )

    def _path(self) -> int:
        kind = self._rng.random()
        if kind < 0.1:
            return self._memory()
        path = self._rng.choice((*self._paths, *self._paths, b"", b".", b"x"))
        if kind < 0.3:
            path += self._rng.choice((b"/x", b"/..", b"/" + b"y" * 300, b"/." * 3000))
        return self._text(path + b"\0")

    def _aio(self) -> None:
        """Submit some requests, and forget them, or wait a moment."""
        place = self._text(bytes(8))
        if call("io_setup", 4, place) != 0:
            return
        context = int.from_bytes(get(place, 8), "little")
        for _ in range(3):
            command = self._rng.choice((0, 0, 1, 2, 3, 5, 7, 8, self._rng.getrandbits(16)))
            size = self._makers["size"]() % (1 << 63)
            offset = self._makers["offset"]()
            block = Struct("=QIIHhIQQqQII").pack(
                *(0, 0, self._flags(), command, 0, self._fd() % (1 << 32)),
                *(self._memory() % (1 << 64), size, offset, 0, 0, 0),
            )
            call("io_submit", context, 1, self._text(self._text(block).to_bytes(8, "little")))
        if self._rng.random() < 0.5:
            call("io_destroy", context)

    def _io_uring(self) -> None:
        """Submit a request to a ring of one's own. Source: io_uring(7)."""
        parameters = self._text(bytes(120))
        ring = call("io_uring_setup", 2, parameters)
        if ring < 0:
            return
        described = get(parameters, 120)
        tail, array = (int.from_bytes(described[at : at + 4], "little") for at in (44, 64))
        queue, entries = (
            call("mmap", 0, PAGE, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, ring, at)
            for at in (0, _IO_URING_SIZE)
        )
        if min(queue, entries) > 0:
            operation = self._rng.choice((1, 2, 3, 6, 18, 19, 22, 23, 24, 28, 30, 33))
            entry = Struct("=BBHiQQII24x").pack(
                *(operation, self._rng.choice((0, 0, 16)), 0, min(self._fd(), 1 << 30)),
                *(0, self._memory() % (1 << 64), self._makers["size"]() % (1 << 31), 0),
            )
            put(entries, entry)
            put(queue + array, bytes(4))
            put(queue + tail, (1).to_bytes(4, "little"))
            call("io_uring_enter", ring, 1, 0, 0, 0, 0)
        self._keep(ring)

    def _handle(self) -> None:
        """Open an inode by a number."""
        kind, node = self._rng.choice((0x81, 0x82, 1)), self._rng.choice((1, 2, 0x1234, 1 << 40))
        size = 24 if kind == 0x82 else 12
        place = (node >> 32, node & 0xFFFFFFFF, 0)
        handle = self._text(Struct("=Ii6I").pack(size, kind, *place * 2))
        path = self._text(self._rng.choice(self._paths) + b"\0")
        opened = call("openat", _AT_FDCWD, path, os.O_RDONLY)
        flags = self._rng.choice((os.O_RDWR, os.O_DIRECTORY, os.O_DIRECTORY))
        for directory in (opened, self._fd()):
            self._keep(call("open_by_handle_at", directory, handle, flags))
        self._keep(opened)


def caller(place: Place, rng: random.Random, book: Ledger) -> None:
    """Make calls until they are enough."""
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (signal.SIGALRM, signal.SIGIO, signal.SIGUSR1, signal.SIGPIPE):
        signal.signal(number, lambda _number, _frame: None)
    signal.setitimer(signal.ITIMER_REAL, _ALARM_SECONDS, _ALARM_SECONDS)
    if rng.random() < 0.2:
        with suppress(OSError):
            alone()
    means = Caller(place, rng)
    for _ in range(CALLS_OF_A_PROCESS):
        means.call()
        book.add(Count.CALLS)
