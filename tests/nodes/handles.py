"""What the tests of handles share: callers, refusals, and a daemon that answers by hand."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ecryptfs_cuse.core.messaging import Daemon
from ecryptfs_cuse.fuse.caller import Caller
from ecryptfs_cuse.nodes.device import identity_of
from tests.nodes.clock import Kernel

CALLER = Caller(1000, 4026531837)
OTHER_CALLER = Caller(1001, 4026531837)


@contextmanager
def refused(number: int) -> Iterator[None]:
    """The block raises OSError with this errno."""
    with pytest.raises(OSError) as caught:  # noqa: PT011  # the errno is looked at below
        yield
    assert caught.value.errno == number


class Keyd:
    """A daemon that answers when it is told to."""

    def __init__(self, kernel: Kernel, caller: Caller = CALLER) -> None:
        self.miscdev = kernel.miscdev
        self.daemon: Daemon = kernel.miscdev.open(identity_of(caller), lambda: None)

    def next_data(self) -> bytes:
        """Read the next request: its data. ``answer`` then answers it."""
        packet = self.miscdev.read(self.daemon, 4096)
        assert packet, "there is no request"
        self.counter = packet[1:5]
        body = packet[6:] if packet[5] < 192 else packet[7:]
        self.index = body[:4]
        return body[8:]

    def answer(self, data: bytes) -> None:
        """Answer the request that was read last; at most 183 octets."""
        body = self.index + struct.pack("=I", len(data)) + data
        self.miscdev.write(self.daemon, b"\x67" + self.counter + bytes((len(body),)) + body)
