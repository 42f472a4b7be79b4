"""dev/ecryptfs: each open file is a daemon."""

import errno
import os
import stat

import pytest

from ecryptfs_cuse.fuse.caller import Caller
from ecryptfs_cuse.nodes.device import DeviceFile, identity_of
from tests.nodes.clock import Kernel
from tests.nodes.handles import CALLER, OTHER_CALLER, refused

HELO = bytes.fromhex("6400000000")


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def file(kernel: Kernel) -> DeviceFile:
    return DeviceFile(kernel.miscdev, 0o600)


@pytest.mark.parametrize(
    "flags",
    [
        os.O_RDWR,
        os.O_RDONLY,
        os.O_WRONLY,
        3,
        os.O_RDWR | os.O_NONBLOCK,
        os.O_RDWR | os.O_TRUNC,
        os.O_RDWR | os.O_APPEND,
        os.O_RDWR | os.O_CREAT,
        os.O_RDWR | os.O_SYNC,
    ],
)
def test_an_open_registers_a_daemon_whatever_its_flags(
    kernel: Kernel, file: DeviceFile, flags: int
) -> None:
    file.open(CALLER, flags)
    assert [daemon.identity for daemon in kernel.messaging.daemons] == [identity_of(CALLER)]
    with refused(errno.EINVAL):
        file.open(CALLER, os.O_RDWR)


def test_o_direct_is_refused_and_leaves_no_daemon_behind(kernel: Kernel, file: DeviceFile) -> None:
    with refused(errno.EINVAL):
        file.open(CALLER, os.O_RDWR | os.O_DIRECT)
    assert list(kernel.messaging.daemons) == []
    file.open(CALLER, os.O_RDWR)


def test_a_user_may_have_1024_daemons_in_all_user_namespaces_together(
    kernel: Kernel, file: DeviceFile
) -> None:
    opened = [file.open(Caller(CALLER.uid, number), os.O_RDWR) for number in range(1024)]
    with refused(errno.EMFILE):
        file.open(Caller(CALLER.uid, 1024), os.O_RDWR)
    file.open(OTHER_CALLER, os.O_RDWR)
    opened[0].release()
    for _ in range(2000):
        with refused(errno.EINVAL):
            file.open(Caller(CALLER.uid, 1), os.O_RDWR)
    file.open(Caller(CALLER.uid, 1024), os.O_RDWR)


def test_the_last_close_unregisters_the_daemon(kernel: Kernel, file: DeviceFile) -> None:
    file.open(CALLER, os.O_RDWR).release()
    assert list(kernel.messaging.daemons) == []
    file.open(CALLER, os.O_RDWR)


def test_callers_of_another_uid_or_user_namespace_have_daemons_of_their_own(
    kernel: Kernel, file: DeviceFile
) -> None:
    callers = (CALLER, OTHER_CALLER, Caller(CALLER.uid, 4026532000))
    for caller in callers:
        file.open(caller, os.O_RDWR)
    identities = [(d.identity.euid, d.identity.user_namespace) for d in kernel.messaging.daemons]
    assert identities == [(caller.uid, caller.user_namespace) for caller in callers]


@pytest.mark.parametrize("offset", [0, 7, 1 << 40])
def test_the_offset_of_a_read_or_write_means_nothing(
    kernel: Kernel, file: DeviceFile, offset: int
) -> None:
    handle = file.open(CALLER, os.O_RDWR)
    assert not handle.seekable
    assert handle.write(HELO, offset) == 5
    kernel.messaging.send_message(identity_of(CALLER), b"question", lambda: None)
    assert (handle.read(4096, offset) or b"").endswith(b"question")


def test_a_message_wakes_the_handle_and_the_pending_read_gets_it(
    kernel: Kernel, file: DeviceFile
) -> None:
    handle = file.open(CALLER, os.O_RDWR)
    wakes: list[int] = []
    handle.wake = lambda: wakes.append(1)  # the transport does so after the open
    assert handle.read(4096, 0) is None
    assert handle.poll() == (0, False)
    kernel.messaging.send_message(identity_of(CALLER), b"question", lambda: None)
    assert wakes == [1]
    assert (handle.resume_read(4096, 0) or b"").endswith(b"question")


def test_a_signal_ends_a_pending_read_with_no_octets_and_o_nonblock_does_not(
    file: DeviceFile,
) -> None:
    handle = file.open(CALLER, os.O_RDWR | os.O_NONBLOCK)
    assert handle.read(4096, 0) is None
    assert handle.interrupt_read() == b""
    assert handle.read(4096, 0) is None


def test_a_queued_packet_makes_the_handle_readable(kernel: Kernel, file: DeviceFile) -> None:
    handle = file.open(CALLER, os.O_RDWR)
    assert handle.poll() == (0, True)
    kernel.messaging.send_message(identity_of(CALLER), b"question", lambda: None)
    assert handle.poll() == (0x41, True)


def test_a_packet_that_makes_no_sense_is_refused(file: DeviceFile) -> None:
    handle = file.open(CALLER, os.O_RDWR)
    with refused(errno.EINVAL):
        handle.write(b"rubbish", 0)


def test_the_file_has_the_mode_and_owner_that_it_was_given_and_cannot_be_truncated(
    kernel: Kernel,
) -> None:
    file = DeviceFile(kernel.miscdev, 0o640, 12, 34)
    attributes = file.attributes
    assert stat.S_ISREG(attributes.mode)
    assert (stat.S_IMODE(attributes.mode), attributes.uid, attributes.gid) == (0o640, 12, 34)
    with refused(errno.EINVAL):
        file.truncate()
