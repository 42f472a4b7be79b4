"""What has to hold for the channel, whatever requests it is sent: for tests and for the fuzzer."""

import os
from struct import pack

from ecryptfs_cuse.fuse import abi, channel
from ecryptfs_cuse.fuse.abi import Opcode
from ecryptfs_cuse.fuse.caller import Caller, own_user_namespace
from ecryptfs_cuse.nodes.exchange import Exchange
from ecryptfs_cuse.nodes.request import RequestFile
from tests.fuse.kernel import NO_REPLY, Complaints, Kernel

USER = 1000
AT_ONCE = 32
"""How many pieces are sent before they are served."""

RAW = 0x80
"""Flag of a piece's first octet: what follows is sent as it is, not as a request's body."""


def pieces(octets: bytes) -> list[tuple[int, bytes]]:
    """Take the input for pieces of an octet (what it is), one for a length, and so many octets."""
    found = []
    while len(octets) >= 2:
        kind, size = octets[:2]
        found.append((kind, octets[2 : 2 + size]))
        octets = octets[2 + size :]
    return found


def check_requests(octets: bytes) -> None:
    """Each request gets one reply, at the latest when its file is closed; nothing is left over."""
    complaints = Complaints()
    channel.logger.addHandler(complaints)
    propagate, channel.logger.propagate = channel.logger.propagate, False
    try:
        with Kernel() as kernel:
            _check(kernel, octets)
            assert "a handle failed" not in complaints.texts
    finally:
        channel.logger.propagate = propagate
        channel.logger.removeHandler(complaints)


def _check(kernel: Kernel, octets: bytes) -> None:
    # Two devices and a requester: files 1, 2 and 3.
    files = [kernel.open_device(USER), kernel.open_device(USER + 1)]
    requests = RequestFile(Exchange(kernel.messaging, 0))
    handle = requests.open(Caller(USER, own_user_namespace()), os.O_RDWR)
    files.append(kernel.channel.add(handle))
    sent = []
    for place, (kind, body) in enumerate(pieces(octets), 1):
        if kind & RAW:
            if body:  # a message of no octets means that the connection is over
                kernel.post_octets(body)
        else:
            unique = kernel.post(kind, body)
            if kind not in NO_REPLY:
                sent.append(unique)
        if place % AT_ONCE == 0:
            kernel.serve()
    for file in files:
        kernel.post(Opcode.RELEASE, pack("=QIIQ", file, 0, 0, 0))
    kernel.serve()
    kernel.refuse_forwarded()
    for unique in sent:
        answer = kernel.answer(unique)
        assert answer is not None
        assert -abi.ERROR_MAX <= answer[0] <= 0
    left_over = (kernel.channel._reading, kernel.channel._files, kernel.channel._forwarded)
    assert not any(left_over)
    assert list(kernel.messaging.daemons) == []
