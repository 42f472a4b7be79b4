"""Users who do what FUSE might not bear: each function is one such thing, done with a file open.

Whether a call works is not looked at: it has to return, or to end with its process, and nobody else
may notice. What comes of it must not be another user's.
"""

import array
import fcntl
import mmap
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from struct import Struct

from soak.calls import call
from soak.hanging import alone, hanging_memory
from soak.ledger import Count, Ledger
from soak.memory import PAGE, get, mapped, put, spacious
from soak.place import Place, check_ours, marked
from tests.device.traffic import HELO, PACKET_MAX

Deed = Callable[[Place, random.Random], None]

MIB = 1 << 20

_LINGER_SECONDS = 0.5
_IOCB = Struct("=QIIHhIQQqQII")  # linux/aio_abi.h, struct iocb
_IOCB_CMD_PREAD, _IOCB_CMD_PWRITE = 0, 1
_SPLICE_F_NONBLOCK = 2
_MADV_POPULATE_READ = 22
_POSIX_FADV_WILLNEED = 3
_THREADS = 8


def do(deed: Deed, place: Place, rng: random.Random, book: Ledger) -> None:
    """Do one of them, as far as it is let."""
    with suppress(OSError):
        deed(place, rng)
        book.add(Count.DEEDS)


def _open(place: Place, rng: random.Random) -> int:
    """Open a file of the tree, most likely the device, and greet; or raise a request that waits."""
    path = rng.choice((place.device, place.device, place.device, place.request, place.status))
    descriptor = os.open(path, os.O_RDONLY if path == place.status else os.O_RDWR)
    with suppress(OSError):
        os.write(descriptor, HELO if path == place.device else marked(os.getuid(), 0))
    return descriptor


def fill_cache(place: Place, rng: random.Random) -> None:
    """Have the kernel read ahead, in three ways; look at what it read."""
    descriptor = _open(place, rng)
    size = rng.choice((1, PAGE, MIB))
    way = rng.randrange(3)
    if way == 0:
        call("fadvise64", descriptor, 0, size, _POSIX_FADV_WILLNEED)
    elif way == 1:
        call("readahead", descriptor, 0, size)
    else:
        address = mapped(size, mmap.PROT_READ, descriptor)
        if call("madvise", address, PAGE, _MADV_POPULATE_READ) == 0:
            check_ours(get(address, PAGE), os.getuid())
    _splice_out(descriptor)


def splice(place: Place, rng: random.Random) -> None:
    """Copy from the file and to it without the process' memory."""
    descriptor = _open(place, rng)
    way = rng.randrange(4)
    if way == 0:
        _splice_out(descriptor)
    elif way == 1:
        one, other = socket.socketpair()
        one.setblocking(False)
        call("sendfile", one.fileno(), descriptor, 0, PACKET_MAX)
        _check_readable(other.fileno())
    elif way == 2:
        reading, writing = os.pipe()
        os.write(writing, HELO)
        call("splice", reading, 0, descriptor, 0, 5, 0)
    else:
        call("copy_file_range", descriptor, 0, _open(place, rng), 0, PACKET_MAX, 0)


def _splice_out(descriptor: int) -> None:
    reading, writing = os.pipe()
    call("splice", descriptor, 0, writing, 0, PACKET_MAX, _SPLICE_F_NONBLOCK)
    other_reading, other_writing = os.pipe()
    call("tee", reading, other_writing, PACKET_MAX, _SPLICE_F_NONBLOCK)
    for pipe in (reading, other_reading):
        _check_readable(pipe)


def _check_readable(descriptor: int) -> None:
    os.set_blocking(descriptor, False)
    with suppress(BlockingIOError):
        check_ours(os.read(descriptor, PACKET_MAX), os.getuid())


def asynchronous(place: Place, rng: random.Random) -> None:
    """Submit reads and writes, and exit while they are under way."""
    descriptor = _open(place, rng)
    if rng.random() < 0.6:
        with suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_DIRECT)
    count = rng.choice((1, 8, 64))
    desk = spacious(PAGE * 4)
    if call("io_setup", count, put(desk, bytes(8))) != 0:
        return
    context = int.from_bytes(get(desk, 8), "little")
    for _ in range(count):
        command = _IOCB_CMD_PWRITE if rng.random() < 0.1 else _IOCB_CMD_PREAD
        block = _IOCB.pack(0, 0, 0, command, 0, descriptor, desk + PAGE * 2, PAGE, 0, 0, 0, 0)
        put(desk + 8, (desk + 64).to_bytes(8, "little"))
        put(desk + 64, block)
        call("io_submit", context, 1, desk + 8)
    if rng.random() < 0.3:
        time.sleep(rng.uniform(0, _LINGER_SECONDS))


def write_what_never_comes(place: Place, rng: random.Random) -> None:
    """Write, read and list with memory that never comes, whatever the kernel has locked then."""
    descriptor = _open(place, rng) if rng.random() < 0.8 else -1
    directory = os.open(rng.choice(place.directories), os.O_PATH | os.O_DIRECTORY)
    with suppress(OSError):
        directory = os.open(rng.choice(place.directories), os.O_RDONLY | os.O_DIRECTORY)
    address = hanging_memory(str(place.scratch))
    desk = spacious(PAGE)
    vector = put(desk, Struct("=4Q").pack(desk, 5, address, PAGE))
    way = rng.randrange(5)
    if way == 0:
        call("getdents64", directory, address, PAGE)
    elif way == 1:
        call("read", descriptor, address, PACKET_MAX)
    elif way == 2:
        call("writev", descriptor, vector, 2)
    else:
        call("write", descriptor, address, rng.choice((5, 400, PAGE, MIB)))


def change_directories(place: Place, rng: random.Random) -> None:
    """Try to make, remove, rename and link in the tree's directories, again and again."""
    for _ in range(100):
        directory = rng.choice(place.directories)
        name = os.path.join(directory, rng.choice(("a", "b", "dev", "ecryptfs", "x" * 255)))
        other = os.path.join(rng.choice(place.directories), "b")
        with suppress(OSError):
            change = rng.choice((os.mkdir, os.rmdir, os.unlink, os.mkfifo, os.listdir, os.stat))
            change(name)
        with suppress(OSError):
            rng.choice((os.rename, os.link, os.symlink))(name, other)


def write_much(place: Place, rng: random.Random) -> None:
    """Write 1 MiB at a time in many threads."""
    descriptor = os.open(rng.choice((place.device, place.request)), os.O_RDWR)
    write_in_threads(descriptor, _THREADS, rng.uniform(0.1, 1))


def write_in_threads(descriptor: int, count: int, seconds: float) -> None:
    """The same, for so long."""
    memory = bytes(MIB)
    end = time.monotonic() + seconds

    def write() -> None:
        while time.monotonic() < end:
            with suppress(OSError):
                os.write(descriptor, memory)

    previous = threading.stack_size(256 << 10)
    threads = [threading.Thread(target=write) for _ in range(count)]
    threading.stack_size(previous)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def open_by_handle(place: Place, rng: random.Random) -> None:
    """Open inodes by number, those that there are and others, as the root of a namespace."""
    alone()
    # Opened in here, because the kernel asks for rights over the namespace that the mount is in;
    # a file, because the directories may not be open to everybody.
    descriptor = os.open(place.status, os.O_RDONLY)
    handle = spacious(PAGE)
    for _ in range(50):
        kind = rng.choice((0x81, 0x82, 1, 2, 0xFF))
        number = rng.choice((0, 1, 2, 3, 0x1234, rng.randrange(20), rng.getrandbits(64)))
        place_of_it = (number >> 32, number & 0xFFFFFFFF, 0)  # as fuse_encode_fh has it
        octets = Struct("=Ii 6I").pack(24 if kind == 0x82 else 12, kind, *place_of_it * 2)
        flags = rng.choice((os.O_RDWR, os.O_DIRECTORY, os.O_DIRECTORY))  # only root may do without
        opened = call("open_by_handle_at", descriptor, put(handle, octets), flags)
        if opened >= 0:
            with suppress(OSError):
                os.write(opened, HELO)
            os.close(opened)


def reopen(place: Place, rng: random.Random) -> None:
    """Open a file again by its descriptor, which may be O_PATH; change it by its descriptor."""
    descriptor = _open(place, rng) if rng.random() < 0.5 else os.open(place.device, os.O_PATH)
    path = f"/proc/self/fd/{descriptor}"
    for _ in range(10):
        with suppress(OSError):
            os.close(os.open(path, rng.choice((os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_PATH))))
        with suppress(OSError):
            os.link(path, place.scratch / f"{os.getpid()}", follow_symlinks=True)
        with suppress(OSError):
            os.truncate(path, rng.choice((0, 1, MIB)))


def take_over(place: Place, rng: random.Random) -> None:
    """Try to change mode, owner, times and attributes."""
    changes: tuple[Callable[[str], None], ...] = (
        lambda path: os.chmod(path, 0o600),
        lambda path: os.chown(path, os.getuid(), -1),
        lambda path: os.setxattr(path, "user.x", b"x"),
        lambda path: os.utime(path, (0, 0)),
        lambda path: os.truncate(path, 0),
    )
    for path in (*place.files, *place.directories):
        for change in changes:
            with suppress(OSError):
                change(path)


def lock(place: Place, rng: random.Random) -> None:
    """Lock, lease and watch, for a while."""
    descriptor = _open(place, rng)
    for command in (
        lambda: fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB),
        lambda: fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB),
        lambda: fcntl.fcntl(
            descriptor, fcntl.F_SETLEASE, rng.choice((fcntl.F_RDLCK, fcntl.F_WRLCK))
        ),
        lambda: fcntl.fcntl(descriptor, fcntl.F_NOTIFY, -1),
        lambda: fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_ASYNC | os.O_APPEND | os.O_NONBLOCK),
    ):
        with suppress(OSError):
            command()
    time.sleep(rng.uniform(0, _LINGER_SECONDS))


def hold_contexts(place: Place, rng: random.Random) -> None:
    """Raise as many requests as there may be, and go away."""
    device = _open(place, rng)
    for _ in range(rng.choice((5, 40))):
        descriptor = os.open(place.request, os.O_RDWR)
        with suppress(OSError):
            os.write(descriptor, marked(os.getuid(), 0))
    time.sleep(rng.uniform(0, _LINGER_SECONDS))
    os.close(device)


def fork_with_it(place: Place, rng: random.Random) -> None:
    """Leave an open file to a child that reads and outlives us."""
    descriptor = _open(place, rng)
    if os.fork() == 0:
        signal.alarm(1)
        with suppress(OSError):
            check_ours(os.read(descriptor, PACKET_MAX), os.getuid())
        os._exit(0)
    time.sleep(rng.uniform(0, 0.1))


def pass_it_on(place: Place, rng: random.Random) -> None:
    """Give an open file to whoever takes it, or take one and use it."""
    address = f"\0soak-{os.getppid()}-{rng.randrange(5)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as meeting:
        meeting.settimeout(_LINGER_SECONDS)
        with suppress(OSError):
            if rng.random() < 0.5:
                meeting.bind(address)
                for descriptor in socket.recv_fds(meeting, 1, 4)[1]:
                    os.write(descriptor, HELO)
                    os.set_blocking(descriptor, False)
                    os.read(descriptor, 5)
            else:
                descriptors = array.array("i", [_open(place, rng)])
                socket.send_fds(meeting, [b"x"], descriptors, 0, address)


def be_killed_in_read(place: Place, rng: random.Random) -> None:
    """Block in read, in several threads, until we are killed."""
    descriptor = _open(place, rng)
    for _ in range(rng.randrange(1, 4)):
        threading.Thread(target=_read, args=(descriptor,), daemon=True).start()
    time.sleep(rng.uniform(0, _LINGER_SECONDS))
    os.kill(os.getpid(), signal.SIGKILL)


def _read(descriptor: int) -> None:
    with suppress(OSError):
        os.read(descriptor, PACKET_MAX)


DEEDS: tuple[Deed, ...] = (
    be_killed_in_read,
    change_directories,
    fork_with_it,
    hold_contexts,
    lock,
    pass_it_on,
    reopen,
    take_over,
    fill_cache,
    fill_cache,
    splice,
    asynchronous,
    write_what_never_comes,
    write_what_never_comes,
    write_much,
    open_by_handle,
)
