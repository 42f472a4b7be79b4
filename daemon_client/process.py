"""Keep the keys of this process to itself."""

import ctypes
import os
import resource

_PR_SET_DUMPABLE = 4  # linux/prctl.h


def forbid_core_files() -> None:
    """Write no core file, in which the keys would be. Harmless at any time."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def forbid_inspection() -> None:
    """Let nobody but root read this process's memory, nor a crash handler have it.

    Call it once the device is open. It also hides /proc/PID/ns/user, in which a device's server
    that is not root looks up, at open, the user namespace that the daemon is registered for.

    Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
