"""Memory by its address, for system calls: what is written there, and where nothing can be."""

import ctypes
import errno
import mmap
import os

from soak.calls import call

PAGE = mmap.PAGESIZE

_PROT_NONE = 0  # asm-generic/mman-common.h
_MAP_NORESERVE = 0x4000


def mapped(size: int, protection: int, descriptor: int = -1) -> int:
    """Map a file's beginning, or no file, for ourselves alone; the address. Raises OSError."""
    flags = mmap.MAP_PRIVATE | (mmap.MAP_ANONYMOUS | _MAP_NORESERVE if descriptor < 0 else 0)
    address = call("mmap", 0, size, protection, flags, descriptor, 0)
    if -4096 < address < 0:
        raise OSError(-address, f"mmap: {os.strerror(-address)}")
    return address


def spacious(size: int) -> int:
    """The address of ``size`` octets, with so much behind them that nobody overruns it."""
    address = mapped(size + (1 << 28), _PROT_NONE)
    if call("mprotect", address, size, mmap.PROT_READ | mmap.PROT_WRITE) != 0:
        raise OSError(errno.ENOMEM, "no memory to write to")
    return address


def put(address: int, octets: bytes) -> int:
    """Write octets there; the address."""
    ctypes.memmove(address, octets, len(octets))
    return address


def get(address: int, size: int) -> bytes:
    """The octets there."""
    return ctypes.string_at(address, size)
