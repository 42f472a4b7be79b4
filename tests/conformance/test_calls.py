"""Other system calls on the open device: status, control, memory, locks, attributes."""

import errno
import fcntl
import mmap
import os
import stat
from struct import pack

from tests.conformance.case import case, cases
from tests.conformance.daemon import attempt
from tests.conformance.system import System, Value

_REGULAR = "regular-file"
_AS_REGULAR_FILE_EINVAL = (_REGULAR, "EINVAL")


@cases(
    case("it is a character device", stat.S_IFCHR, "type", deviation=(_REGULAR, stat.S_IFREG)),
    case("it has a device number", True, "rdev", deviation=(_REGULAR, False)),
    case("its size is 0", 0, "size"),
    case("it takes no blocks", 0, "blocks"),
    case("its block size is a page", 4096, "blksize"),
    case("it has one name", 1, "nlink"),
    case("it is root's", (0, 0), "owner"),
)
def test_stat(system: System, what: str) -> Value:
    with system.daemon() as daemon:
        status = daemon.call("os.fstat")
        assert isinstance(status, os.stat_result)
    return {
        "type": stat.S_IFMT(status.st_mode),
        "rdev": status.st_rdev != 0,
        "size": status.st_size,
        "blocks": status.st_blocks,
        "blksize": status.st_blksize,
        "nlink": status.st_nlink,
        "owner": (status.st_uid, status.st_gid),
    }[what]


@cases(case("fchmod changes the mode, and nothing else", (0, 0o600, "EINVAL")))
def test_fchmod(system: System) -> Value:
    with system.daemon() as daemon:
        changed = daemon.call("system_call", "fchmod", 0o600)
        try:
            mode = stat.S_IMODE(daemon.client.call("os.stat", system.device).st_mode)
            return changed, mode, system.opened()
        finally:
            daemon.call("system_call", "fchmod", 0o666)


_TCGETS, _FIOCLEX, _FIONBIO, _FIOASYNC, _FIOQSIZE = 0x5401, 0x5451, 0x5421, 0x5452, 0x5460
_FIONREAD, _FIBMAP, _FIGETBSZ, _FS_IOC_GETFLAGS = 0x541B, 1, 2, 0x8008_6601
_OFF, _ON = pack("=q", 0), pack("=q", 1)


@cases(
    case("FIONREAD", "ENOTTY", _FIONREAD, _OFF, deviation=(_REGULAR, 0)),
    case("TCGETS", "ENOTTY", _TCGETS, _OFF),
    case("0", "ENOTTY", 0, _OFF),
    case("0xdeadbeef", "ENOTTY", 0xDEADBEEF, _OFF),
    case("FIONBIO, off", 0, _FIONBIO, _OFF),
    case("FIONBIO, on", 0, _FIONBIO, _ON),
    case("FIOCLEX", 0, _FIOCLEX, _OFF),
    case("FIOASYNC, off", 0, _FIOASYNC, _OFF),
    case("FIOASYNC, on", "ENOTTY", _FIOASYNC, _ON),
    case("FS_IOC_GETFLAGS", "ENOTTY", _FS_IOC_GETFLAGS, _OFF, deviation=_AS_REGULAR_FILE_EINVAL),
    case("FIOQSIZE", "ENOTTY", _FIOQSIZE, _OFF, deviation=(_REGULAR, 0)),
    case("FIBMAP", "ENOTTY", _FIBMAP, _OFF, deviation=(_REGULAR, 0)),
    case("FIGETBSZ", 0, _FIGETBSZ, _OFF),
)
def test_ioctl(system: System, request: int, argument: bytes) -> Value:
    with system.daemon() as daemon:
        return daemon.call("system_call", "ioctl", request, argument.ljust(64, b"\0"))


_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE


@cases(
    case("shared, for reading", "ENODEV", mmap.PROT_READ, mmap.MAP_SHARED),
    case("shared, for writing", "ENODEV", _READ_WRITE, mmap.MAP_SHARED),
    case(
        "private, for reading",
        "ENODEV",
        mmap.PROT_READ,
        mmap.MAP_PRIVATE,
        deviation=(_REGULAR, None),
    ),
    case(
        "private, for writing", "ENODEV", _READ_WRITE, mmap.MAP_PRIVATE, deviation=(_REGULAR, None)
    ),
)
def test_mmap(system: System, protection: int, flags: int) -> Value:
    with system.daemon() as daemon:
        return daemon.call("map_pages", protection, flags)


@cases(
    case("fsync", "EINVAL", "fsync"),
    case("fdatasync", "EINVAL", "fdatasync"),
    case("syncfs", 0, "syncfs"),
    case("fchdir", "ENOTDIR", "fchdir"),
    case("ftruncate to nothing", "EINVAL", "ftruncate", 0),
    case("ftruncate to 10 octets", "EINVAL", "ftruncate", 10),
    case("fallocate", "ENODEV", "fallocate", 0, 0, 10, deviation=(_REGULAR, "ENOTSUP")),
    case("fallocate of a hole", "ENODEV", "fallocate", 3, 0, 10, deviation=(_REGULAR, "ENOTSUP")),
    case("posix_fadvise", 0, "posix_fadvise", 0, 0, 0),
    case("posix_fadvise with advice that is unknown", errno.EINVAL, "posix_fadvise", 0, 0, 99),
    case("readahead", "EINVAL", "readahead", 0, 100, deviation=(_REGULAR, 0)),
    case("sync_file_range", "ESPIPE", "sync_file_range", 0, 0, 0, deviation=(_REGULAR, 0)),
    case("getdents64", "ENOTDIR", "getdents64", bytes(200), 200),
    case("getsockopt", "ENOTSOCK", "getsockopt", 1, 4, bytes(4), pack("=i", 4)),
)
def test_call(system: System, name: str, *arguments: int | bytes) -> Value:
    with system.daemon() as daemon:
        return daemon.call("system_call", name, *arguments)


@cases(case("truncate by its path", "EINVAL"))
def test_truncate(system: System) -> Value:
    return attempt(system.client().call, "os.truncate", system.device, 0)


_EXCLUSIVE, _SHARED, _UNLOCK = fcntl.LOCK_EX, fcntl.LOCK_SH, fcntl.LOCK_UN
_F_SETLEASE, _F_SETPIPE_SZ, _F_GETPIPE_SZ, _F_GET_SEALS = 1024, 1031, 1032, 1034
_F_OFD_SETLK = 37


def _lock(kind: int) -> bytes:
    return pack("=hhiqqii", kind, os.SEEK_SET, 0, 0, 0, 0, 0)


@cases(
    case("flock, exclusive", 0, "flock", _EXCLUSIVE | fcntl.LOCK_NB),
    case("flock, shared", 0, "flock", _SHARED | fcntl.LOCK_NB),
    case("flock, unlocking", 0, "flock", _UNLOCK),
    case("F_SETLK for writing", 0, "fcntl", fcntl.F_SETLK, _lock(fcntl.F_WRLCK)),
    case("F_SETLK for reading", 0, "fcntl", fcntl.F_SETLK, _lock(fcntl.F_RDLCK)),
    case("F_GETLK", 0, "fcntl", fcntl.F_GETLK, _lock(fcntl.F_WRLCK)),
    case("F_OFD_SETLK", 0, "fcntl", _F_OFD_SETLK, _lock(fcntl.F_WRLCK)),
    case(
        "F_SETLEASE for reading",
        "EINVAL",
        "fcntl",
        _F_SETLEASE,
        fcntl.F_RDLCK,
        deviation=(_REGULAR, "EAGAIN"),
    ),
    case(
        "F_SETLEASE, unlocking",
        "EINVAL",
        "fcntl",
        _F_SETLEASE,
        fcntl.F_UNLCK,
        deviation=(_REGULAR, "EAGAIN"),
    ),
    case("F_NOTIFY", "ENOTDIR", "fcntl", 1026, 1),
    case("F_SETPIPE_SZ", "EBADF", "fcntl", _F_SETPIPE_SZ, 4096),
    case("F_GETPIPE_SZ", "EBADF", "fcntl", _F_GETPIPE_SZ, 0),
    case("F_GET_SEALS", "EINVAL", "fcntl", _F_GET_SEALS, 0),
    case("F_SETOWN", 0, "fcntl", fcntl.F_SETOWN, 1),
)
def test_locks_and_control(system: System, name: str, *arguments: int | bytes) -> Value:
    with system.daemon() as daemon:
        return daemon.call("system_call", name, *arguments)


@cases(
    case("O_ASYNC is accepted, and not kept", (0, 0x8002), os.O_ASYNC),
    case("O_NONBLOCK is kept", (0, 0x8802), os.O_NONBLOCK),
    case("O_APPEND is kept", (0, 0x8402), os.O_APPEND),
    case("O_NOATIME is kept", (0, 0x48002), os.O_NOATIME),
    case(
        "O_DIRECT is refused",
        ("EINVAL", 0x8002),
        os.O_DIRECT,
        deviation=(_REGULAR, (0, 0xC002)),
    ),
)
def test_setting_flags(system: System, flags: int) -> Value:
    with system.daemon() as daemon:
        changed = daemon.call("system_call", "fcntl", fcntl.F_SETFL, flags)
        return changed, daemon.call("fcntl.fcntl", fcntl.F_GETFL)


_NAMES = ("user.x", "security.selinux", "security.capability", "trusted.x")


@cases(
    *(case(f"getting {name}", "ENODATA", "fgetxattr", name, bytes(100), 100) for name in _NAMES),
    case("getting an access list", "ENODATA", "fgetxattr", "system.posix_acl_access", bytes(9), 9),
    case("setting user.x", "EPERM", "fsetxattr", "user.x", b"1", 1, 0),
    case("removing user.x", "EPERM", "fremovexattr", "user.x"),
    case("listing them", 0, "flistxattr", None, bytes(100), 100),
)
def test_attributes(system: System, call: str, name: str | None, *arguments: int | bytes) -> Value:
    names = [] if name is None else [name.encode() + b"\0"]
    with system.daemon() as daemon:
        return daemon.call("system_call", call, *names, *arguments)
