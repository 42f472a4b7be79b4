"""For a worker (tests/worker.py): open files by io_uring. Source: io_uring_setup(2)."""

import ctypes
import errno
import mmap
import os
import struct

_SETUP, _ENTER = 425, 426
_GETEVENTS = 1
_SQ_RING, _CQ_RING, _SQES = 0, 0x8000000, 0x10000000  # offsets for mmap
_SQ_OFF, _CQ_OFF = 40, 80  # in struct io_uring_params
_OPENAT = 18
_ASYNC = 1 << 4
_AT_FDCWD = -100
_SIZE = 4096

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _call(number: int, *arguments: object) -> int:
    result: int = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


class _Ring:
    def __init__(self) -> None:
        parameters = ctypes.create_string_buffer(120)
        self._descriptor = _call(_SETUP, 4, parameters)
        self._sq, self._cq, self._sqes = (
            mmap.mmap(self._descriptor, _SIZE, offset=offset)
            for offset in (_SQ_RING, _CQ_RING, _SQES)
        )
        _, self._sq_tail, self._sq_mask, _, _, _, self._array = struct.unpack_from(
            "7I", parameters, _SQ_OFF
        )
        self._cq_head, _, self._cq_mask, _, _, self._cqes = struct.unpack_from(
            "6I", parameters, _CQ_OFF
        )

    def open(self, path: str, flags: int) -> int:
        """openat(2), done by a worker thread of the kernel's; the descriptor."""
        name = ctypes.create_string_buffer(os.fsencode(path))
        (tail,) = struct.unpack_from("I", self._sq, self._sq_tail)
        index = tail & struct.unpack_from("I", self._sq, self._sq_mask)[0]
        entry = struct.pack(
            "=BBHiQQII", _OPENAT, _ASYNC, 0, _AT_FDCWD, 0, ctypes.addressof(name), 0, flags
        )
        self._sqes[64 * index : 64 * index + 64] = entry.ljust(64, b"\0")
        struct.pack_into("I", self._sq, self._array + 4 * index, index)
        struct.pack_into("I", self._sq, self._sq_tail, tail + 1)
        _call(_ENTER, self._descriptor, 1, 1, _GETEVENTS, None, 0)
        (head,) = struct.unpack_from("I", self._cq, self._cq_head)
        place = head & struct.unpack_from("I", self._cq, self._cq_mask)[0]
        _, result = struct.unpack_from("=Qi", self._cq, self._cqes + 16 * place)
        struct.pack_into("I", self._cq, self._cq_head, head + 1)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return int(result)


_rings: list[_Ring] = []


def start_workers() -> bool:
    """Have the kernel make a worker with our present credentials; False where it forbids that."""
    try:
        _rings.append(_Ring())
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):
            return False
        raise
    os.close(open_by_worker(os.devnull, os.O_RDWR))
    return True


def open_by_worker(path: str, flags: int) -> int:
    """Open a file by that worker."""
    return _rings[0].open(path, flags)
