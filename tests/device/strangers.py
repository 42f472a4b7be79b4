"""What a stranger does to a file to hold up others. Runs in a client's process, see client.py."""

import ctypes
import fcntl
import mmap
import os
import signal
import struct

_libc = ctypes.CDLL(None, use_errno=True)

_PAGE = mmap.PAGESIZE
_MACHINE = os.uname().machine
_IO_SETUP, _IO_SUBMIT, _IO_GETEVENTS = {"x86_64": (206, 209, 208), "aarch64": (0, 2, 4)}[_MACHINE]
_USERFAULTFD = {"x86_64": 323, "aarch64": 282}[_MACHINE]
_GETDENTS64 = {"x86_64": 217, "aarch64": 61}[_MACHINE]
_UFFDIO_API, _UFFDIO_REGISTER = 0xC018AA3F, 0xC020AA00  # linux/userfaultfd.h
_UFFD_API, _REGISTER_MODE_MISSING = 0xAA, 1
_FILE_HANDLE_WITH_PARENT = 0x81  # a FUSE file handle with a generation, exportfs.h

_libc.mmap.restype = ctypes.c_void_p


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def advise(descriptor: int) -> None:
    """posix_fadvise(2): the file is needed soon."""
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)


def read_ahead(descriptor: int) -> int:
    """readahead(2)."""
    return _checked(_libc.readahead(descriptor, ctypes.c_long(0), ctypes.c_size_t(1 << 16)))


def _map(flags: int, protection: int, descriptor: int) -> int:
    """The address of a page's mapping; Python's own mmap asks for the file's size before."""
    address: int = _libc.mmap(
        None, ctypes.c_size_t(_PAGE), protection, flags, descriptor, ctypes.c_long(0)
    )
    if address == ctypes.c_void_p(-1).value:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return address


def touch_mapping(descriptor: int) -> int:
    """Touch a private mapping of the file, in a child: minus the signal that ends it, or 0."""
    address = _map(mmap.MAP_PRIVATE, mmap.PROT_READ, descriptor)
    child = os.fork()
    if child == 0:
        ctypes.string_at(address, 1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def splice_out(descriptor: int) -> bytes:
    """splice(2) from the file into a pipe: what arrives."""
    source, sink = os.pipe()
    try:
        count = os.splice(descriptor, sink, _PAGE)
        return os.read(source, count) if count else b""
    finally:
        os.close(source)
        os.close(sink)


def send_out(descriptor: int) -> bytes:
    """sendfile(2) from the file into a pipe: what arrives."""
    source, sink = os.pipe()
    try:
        count = os.sendfile(sink, descriptor, None, _PAGE)
        return os.read(source, count) if count else b""
    finally:
        os.close(source)
        os.close(sink)


def set_direct(descriptor: int) -> None:
    """Give an open file O_DIRECT, which an open of the device refuses."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT)


_buffers: list[ctypes.Array[ctypes.c_char]] = []


def submit_reads(descriptor: int, count: int) -> int:
    """io_submit(2): asynchronous reads; how many of them are over within two tenths of a second."""
    context = ctypes.c_ulong(0)
    _checked(_libc.syscall(_IO_SETUP, ctypes.c_long(count), ctypes.byref(context)))
    blocks = []
    for _ in range(count):
        buffer = ctypes.create_string_buffer(_PAGE)
        _buffers.append(buffer)
        # struct iocb: data, key, rw_flags, PREAD, reqprio, fildes, buf, nbytes, offset
        blocks.append(
            ctypes.create_string_buffer(
                struct.pack(
                    "=QIIHhIQQqQII",
                    *(0, 0, 0, 0, 0, descriptor),
                    *(ctypes.addressof(buffer), _PAGE, 0, 0, 0, 0),
                )
            )
        )
    pointers = (ctypes.c_void_p * count)(*map(ctypes.addressof, blocks))
    _checked(_libc.syscall(_IO_SUBMIT, context, ctypes.c_long(count), pointers))
    events = ctypes.create_string_buffer(32 * count)
    patience = struct.pack("=qq", 0, 200_000_000)
    least = ctypes.c_long(count)
    return _checked(_libc.syscall(_IO_GETEVENTS, context, least, least, events, patience))


def _nowhere() -> int:
    """The address of a page that never comes: whoever touches it waits."""
    userfaults = _checked(_libc.syscall(_USERFAULTFD, os.O_CLOEXEC))
    fcntl.ioctl(userfaults, _UFFDIO_API, bytearray(struct.pack("=QQQ", _UFFD_API, 0, 0)))
    address = _map(mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE, -1)
    register = struct.pack("=QQQQ", address, _PAGE, _REGISTER_MODE_MISSING, 0)
    fcntl.ioctl(userfaults, _UFFDIO_REGISTER, bytearray(register))
    return address


def write_from_nowhere(descriptor: int, size: int = 5) -> int:
    """write(2) from memory that never comes."""
    return _checked(_libc.write(descriptor, ctypes.c_void_p(_nowhere()), ctypes.c_size_t(size)))


def list_into_nowhere(directory: str) -> int:
    """getdents64(2) into memory that never comes."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    return _checked(
        _libc.syscall(_GETDENTS64, descriptor, ctypes.c_void_p(_nowhere()), ctypes.c_size_t(_PAGE))
    )


def open_by_handle(path: str, inode: int, flags: int) -> int:
    """open_by_handle_at(2) of an inode number, in a file handle as FUSE makes them.

    ``path``: any file of the file system.
    """
    handle = struct.pack("=IiIII", 12, _FILE_HANDLE_WITH_PARENT, inode >> 32, inode & 0xFFFFFFFF, 0)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return _checked(_libc.open_by_handle_at(descriptor, handle, flags))
    finally:
        os.close(descriptor)


def write_large(descriptor: int, size: int, seconds: float) -> None:
    """Write so much again and again, whatever comes of it, until the alarm ends the process."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    octets = bytes(size)
    while True:
        try:
            os.write(descriptor, octets)
        except OSError:
            continue
