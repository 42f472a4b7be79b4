"""What the clients of this suite can do besides worker.py's functions. Runs in their processes."""

import ctypes
import errno
import mmap
import os
import select
import struct
import sys
import tempfile
import time
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_PROT_NONE, _PROT_READ_WRITE = 0, 3


def close_all_but(kept: list[int]) -> None:
    """Close every descriptor that is not named."""
    epolls = vars(sys.modules["__main__"])["_epolls"]  # worker.py's
    while epolls:
        epolls.popitem()[1].close()
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            try:
                os.close(int(name))
            except OSError as error:
                if error.errno != errno.EBADF:  # the listing's own
                    raise


def open_descriptors() -> list[int]:
    """The descriptors that are open."""
    names = [int(name) for name in os.listdir("/proc/self/fd")]
    return [number for number in names if os.path.exists(f"/proc/self/fd/{number}")]


def make_directory() -> str:
    """A new directory that is nobody else's."""
    return tempfile.mkdtemp(prefix="conformance-")


def create_file(path: str) -> tuple[str, float]:
    """Create an empty file: "OK" or the errno's name, and how long that took."""
    return _open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)


def open_file(path: str, flags: int = os.O_RDONLY) -> tuple[str, float]:
    """Open an existing file: "OK" or the errno's name, and how long that took."""
    return _open(path, flags)


def _open(path: str, flags: int) -> tuple[str, float]:
    begin = time.monotonic()
    try:
        os.close(os.open(path, flags, 0o600))
    except OSError as error:
        return errno.errorcode[error.errno or 0], time.monotonic() - begin
    return "OK", time.monotonic() - begin


def ask(path: str, data: bytes) -> tuple[str, bytes, float]:
    """Raise a request through control/request: "OK" or the errno's name, the answer, the time."""
    begin = time.monotonic()
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.write(descriptor, data)
        answer = os.read(descriptor, 10_000)
    except OSError as error:
        return errno.errorcode[error.errno or 0], b"", time.monotonic() - begin
    finally:
        os.close(descriptor)
    return "OK", answer, time.monotonic() - begin


def timed_poll(descriptor: int, seconds: float) -> tuple[int, float]:
    """Poll for POLLIN: the events, and how long that took."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    begin = time.monotonic()
    found = poller.poll(seconds * 1000)
    return (found[0][1] if found else 0), time.monotonic() - begin


def write_zeros(descriptor: int, count: int) -> int:
    """write(2) of so many zeros."""
    return os.write(descriptor, bytes(count))


def write_each(descriptor: int, several: list[bytes]) -> list[int | str]:
    """Write one after another: each one's count or errno's name."""
    results: list[int | str] = []
    for octets in several:
        try:
            results.append(os.write(descriptor, octets))
        except OSError as error:
            results.append(errno.errorcode[error.errno or 0])
    return results


def write_from(descriptor: int, address: int, count: int) -> int:
    """write(2) from any address."""
    return _checked(_libc.write(descriptor, ctypes.c_void_p(address), ctypes.c_size_t(count)))


def write_from_page_end(descriptor: int, octets: bytes, count: int) -> int:
    """write(2) of memory where only the first octets, at the end of a page, can be read."""
    pages = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    first = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    second = ctypes.c_void_p(first + mmap.PAGESIZE)
    size = ctypes.c_size_t(mmap.PAGESIZE)
    pages[mmap.PAGESIZE - len(octets) : mmap.PAGESIZE] = octets
    _checked(_libc.mprotect(second, size, _PROT_NONE))
    try:
        return write_from(descriptor, first + mmap.PAGESIZE - len(octets), count)
    finally:
        _checked(_libc.mprotect(second, size, _PROT_READ_WRITE))


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def system_call(descriptor: int, name: str, *arguments: int | bytes | None) -> int:
    """A function of the C library's; octets go by their address, in memory that is thrown away."""
    converted = [
        ctypes.create_string_buffer(each, len(each))
        if isinstance(each, bytes)
        else ctypes.c_void_p(each)
        for each in arguments
    ]
    return _checked(_libc[name](descriptor, *converted))


def map_pages(descriptor: int, protection: int, flags: int) -> None:
    """Try mmap(2), and undo it: Python's own looks at the file's size before."""
    call = _libc["mmap"]
    call.restype = ctypes.c_void_p
    size, offset = ctypes.c_size_t(mmap.PAGESIZE), ctypes.c_long(0)
    address = call(None, size, protection, flags, descriptor, offset)
    if address == ctypes.c_void_p(-1).value:
        _checked(-1)
    _checked(_libc.munmap(ctypes.c_void_p(address), size))


def read_vector_at(descriptor: int, sizes: list[int], offset: int, flags: int) -> bytes:
    """preadv2(2) into buffers of these sizes; what was read, joined."""
    buffers = [bytearray(size) for size in sizes]
    count = os.preadv(descriptor, buffers, offset, flags)
    return b"".join(buffers)[:count]


def read_into(descriptor: int, address: int, count: int) -> int:
    """read(2) to any address."""
    return _checked(_libc.read(descriptor, ctypes.c_void_p(address), ctypes.c_size_t(count)))


def read_into_page_end(descriptor: int, room: int, count: int) -> tuple[int | str, bytes]:
    """read(2) where only so many octets can be written: its result, and what is in them then."""
    with_end = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    first = ctypes.addressof(ctypes.c_char.from_buffer(with_end))
    second = ctypes.c_void_p(first + mmap.PAGESIZE)
    size = ctypes.c_size_t(mmap.PAGESIZE)
    _checked(_libc.mprotect(second, size, _PROT_NONE))
    result: int | str
    try:
        result = read_into(descriptor, first + mmap.PAGESIZE - room, count)
    except OSError as error:
        result = errno.errorcode[error.errno or 0]
    finally:
        _checked(_libc.mprotect(second, size, _PROT_READ_WRITE))
    return result, with_end[mmap.PAGESIZE - room : mmap.PAGESIZE]


def read_into_read_only(descriptor: int, count: int) -> int:
    """read(2) to memory that can only be read."""
    page = mmap.mmap(-1, mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    size = ctypes.c_size_t(mmap.PAGESIZE)
    _checked(_libc.mprotect(ctypes.c_void_p(address), size, mmap.PROT_READ))
    try:
        return read_into(descriptor, address, count)
    finally:
        _checked(_libc.mprotect(ctypes.c_void_p(address), size, _PROT_READ_WRITE))


_AIO_CALLS = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
_IO_SETUP, _IO_DESTROY, _IO_GETEVENTS, _IO_SUBMIT = _AIO_CALLS[os.uname().machine]


def aio_setup() -> int:
    """io_setup(2): a context."""
    context = ctypes.c_ulong(0)
    _checked(_libc.syscall(_IO_SETUP, 8, ctypes.byref(context)))
    return context.value


def aio_destroy(context: int) -> None:
    """io_destroy(2)."""
    _checked(_libc.syscall(_IO_DESTROY, ctypes.c_ulong(context)))


def aio_submit(descriptor: int, context: int, opcode: int, octets: bytes, events: int) -> int:
    """io_submit(2) of one operation, on octets or else for events: how many were taken."""
    buffer = ctypes.create_string_buffer(octets, max(len(octets), 1))
    _aio_buffers.append(buffer)
    where = ctypes.addressof(buffer) if octets else events
    # struct iocb: data; key, flags; opcode, priority, descriptor; where, size, position; the rest
    values = 0, 0, 0, opcode, 0, descriptor, where, len(octets), 0, 0, 0, 0
    block = ctypes.create_string_buffer(struct.pack("=QIIHhIQQqQII", *values), 64)
    several = (ctypes.c_void_p * 1)(ctypes.addressof(block))
    return _checked(_libc.syscall(_IO_SUBMIT, ctypes.c_ulong(context), ctypes.c_long(1), several))


_aio_buffers: list[Any] = []


def aio_octets() -> bytes:
    """The memory of the last operation."""
    octets: bytes = _aio_buffers[-1].raw
    return octets


def aio_result(context: int) -> int:
    """io_getevents(2) of one operation: its result, or minus the errno."""
    event = ctypes.create_string_buffer(32)
    one = ctypes.c_long(1)
    _checked(_libc.syscall(_IO_GETEVENTS, ctypes.c_ulong(context), one, one, event, None))
    return int.from_bytes(event.raw[16:24], sys.byteorder, signed=True)
