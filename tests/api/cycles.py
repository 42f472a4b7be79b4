"""Serves again and again, and says what that has cost.

    python -m tests.api.cycles MOUNTPOINT TRANSPORT TIMES

Prints octets of memory, descriptors and threads that have come about by TIMES runs, as JSON. The
first runs do not count: they load what is loaded once.
"""

import ctypes
import gc
import json
import os
import sys
import threading
from pathlib import Path

import trio

from ecryptfs_cuse.serve import Transport, serve

WARM_UP = 10


def resident() -> int:
    """Octets of memory in use (proc(5), statm)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def figures() -> dict[str, int]:
    """What must not grow."""
    return {
        "memory": resident(),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
    }


async def main(mountpoint: str, transport: str, times: int) -> None:
    for number in range(WARM_UP + times):
        if number == WARM_UP:
            before = figures()
        async with serve(mountpoint, transport=Transport(transport)) as device:
            await trio.to_thread.run_sync(os.listdir, device.mountpoint)
    print(json.dumps({name: value - before[name] for name, value in figures().items()}))


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]))
