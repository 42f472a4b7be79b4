"""Keep the keys of this process to itself."""

import ctypes
import os
import re
import resource
from pathlib import Path

_PR_SET_DUMPABLE = 4  # linux/prctl.h
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4  # asm-generic/mman.h
_CAP_IPC_LOCK = 1 << 14  # linux/capability.h


def forbid_core_files() -> None:
    """Write no core file, in which the keys would be. Harmless at any time."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def forbid_inspection() -> None:
    """Let nobody but root read this process's memory, nor a crash handler have it.

    Call it once the device is open. It also hides /proc/PID/ns/user, in which a device's server
    that is not root looks up, at open, the user namespace that the daemon is registered for.

    Raises OSError.
    """
    _check(_libc().prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))


def lock_memory() -> bool:
    """Keep this process's memory out of the swap, if that is allowed; whether it is.

    Raises OSError.
    """
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    if hard != resource.RLIM_INFINITY and not _may_lock_memory():
        # Within a limit, the first allocation beyond it would fail, at any time.
        return False
    if not _may_lock_memory():
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    # ONFAULT: only what is used, not the whole of each thread's stack.
    _check(_libc().mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT))
    return True


def _may_lock_memory() -> bool:
    status = Path("/proc/self/status").read_text()
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return effective is not None and bool(int(effective[1], 16) & _CAP_IPC_LOCK)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
