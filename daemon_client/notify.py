"""Tell systemd how the daemon is doing, as sd_notify(3) does; without systemd, tell nobody."""

import contextlib
import os
import socket
import time


def notify(*assignments: str) -> None:
    """Send state assignments, such as "READY=1". Whoever listens may have gone: that is no error.

    Source: sd_notify(3). An address that starts with @ is in the abstract namespace.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection,
    ):
        connection.connect(address)
        connection.sendall("\n".join(assignments).encode())


def ready(status: str) -> None:
    """The daemon serves, or waits for its device; also the end of a reload."""
    notify("READY=1", f"STATUS={status}")


def reloading() -> None:
    """A reload has begun."""
    microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notify("RELOADING=1", f"MONOTONIC_USEC={microseconds}")


def stopping() -> None:
    """The daemon ends."""
    notify("STOPPING=1")
