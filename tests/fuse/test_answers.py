"""The answers about a tree, as they reach the kernel: the fields of linux/fuse.h."""

import errno
import os
import stat
from struct import calcsize, pack, unpack, unpack_from

import pytest

from ecryptfs_cuse.fuse import abi
from ecryptfs_cuse.fuse.abi import Opcode, Sender
from ecryptfs_cuse.fuse.answers import tree_answers
from ecryptfs_cuse.fuse.inodes import ROOT, Inodes
from ecryptfs_cuse.fuse.node import Directory, Handle, Link, Users
from ecryptfs_cuse.nodes.text import TextFile
from tests.device.traffic import refused

ATTR = "QQQqqqIIIIIIIIII"
FILE = TextFile(lambda: "text")
HOME = Directory({"dev": Directory({"file": FILE})})
TREE = Directory({"dev": Link("users", "dev"), "users": Users(HOME)})
USER = 1000

opened: list[Handle] = []


def add(handle: Handle) -> int:
    opened.append(handle)
    return len(opened)


ANSWERS = tree_answers(Inodes(TREE), add)


def ask(opcode: Opcode, inode: int, body: bytes = b"", uid: int = USER) -> bytes:
    return ANSWERS[opcode](Sender(inode, uid, uid, os.getpid()), memoryview(body))


def look_up(*names: str, uid: int = USER) -> tuple[int, ...]:
    """The fields of the last entry: nodeid, generation, valid ..., and those of its attributes."""
    inode, entry = ROOT, tuple[int, ...]()
    for name in names:
        entry = unpack(f"=QQQQII{ATTR}", ask(Opcode.LOOKUP, inode, name.encode() + b"\0", uid))
        inode = entry[0]
    return entry


def test_an_entry_has_the_inodes_number_and_attributes() -> None:
    FILE.attributes.mtime_ns = -1_500_000_001
    entry = look_up("users", str(USER), "dev", "file")
    attributes = entry[6:]
    assert entry[:6] == (entry[0], 0, 0, 1, 0, 0)  # a file is asked for again each time
    assert attributes[:3] == (entry[0], 0, 0)
    assert attributes[4] * 10**9 + attributes[7] == FILE.attributes.mtime_ns
    assert attributes[9:] == (stat.S_IFREG | 0o444, 1, os.geteuid(), os.getegid(), 0, 4096, 0)
    assert unpack(f"=QII{ATTR}", ask(Opcode.GETATTR, entry[0])) == (1, 0, 0, *attributes)


def test_users_have_entries_and_directories_of_their_own() -> None:
    one, other = (look_up("users", str(uid), "dev", uid=uid) for uid in (USER, USER + 1))
    assert one[0] != other[0]
    for entry, uid in ((one, USER), (other, USER + 1)):
        assert entry[2] == 1
        assert entry[15] == stat.S_IFDIR | 0o700
        assert entry[17] == uid


def test_a_link_leads_each_user_to_their_own() -> None:
    link = look_up("dev")[0]
    assert ask(Opcode.READLINK, link, uid=USER) == b"users/1000/dev"
    assert ask(Opcode.READLINK, link, uid=0) == b"users/0/dev"


def test_an_open_file_is_direct_and_has_a_number() -> None:
    inode = look_up("users", str(USER), "dev", "file")[0]
    number, how, _ = unpack("=QII", ask(Opcode.OPEN, inode, pack("=II", os.O_RDONLY, 0)))
    assert opened[number - 1].read(10, 0) == b"text"
    assert how == abi.FOPEN_DIRECT_IO
    with refused(errno.EACCES):
        ask(Opcode.OPEN, inode, pack("=II", os.O_RDWR, 0))


@pytest.mark.parametrize(
    ("opcode", "inode", "body", "number"),
    [
        (Opcode.LOOKUP, ROOT, b"missing\0", errno.ENOENT),
        (Opcode.LOOKUP, ROOT, b"\xff\0", errno.ENOENT),
        (Opcode.LOOKUP, 2**63, b"dev\0", errno.ESTALE),
        (Opcode.GETATTR, 0, b"", errno.ESTALE),
        (Opcode.READLINK, ROOT, b"", errno.EINVAL),
        (Opcode.OPEN, ROOT, bytes(8), errno.EISDIR),
        (Opcode.OPEN, 2**64 - 1, bytes(8), errno.ESTALE),
    ],
)
def test_what_is_not_there_is_refused(opcode: Opcode, inode: int, body: bytes, number: int) -> None:
    with refused(number):
        ask(opcode, inode, body)


def test_the_structures_are_as_long_as_the_kernels() -> None:
    assert calcsize(f"={ATTR}") == 88
    assert len(ask(Opcode.LOOKUP, ROOT, b"dev\0")) == 128
    assert len(ask(Opcode.GETATTR, ROOT)) == 104
    assert unpack_from("=QII", ask(Opcode.GETATTR, ROOT)) == (1, 0, 0)
