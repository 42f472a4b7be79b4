"""Inodes and their numbers: every number that is given finds its inode, and no other is one."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecryptfs_cuse.fuse.inodes import NOBODY, ROOT, Inode, Inodes
from ecryptfs_cuse.fuse.node import Directory, Link, Node, Users
from ecryptfs_cuse.nodes.text import TextFile
from tests.device.traffic import refused

PERSONAL = TextFile(lambda: "mine")
HOME = Directory({"dev": Directory({"file": PERSONAL})})
SHARED = TextFile(lambda: "ours")
USERS = Users(HOME)
TREE = Directory({"dev": Link("users", "dev"), "sys": Directory({"file": SHARED}), "users": USERS})

UIDS = st.integers(0, NOBODY - 1)


@pytest.fixture(scope="module")
def inodes() -> Inodes:
    return Inodes(TREE)


def walk(inodes: Inodes, uid: int) -> list[Inode]:
    """All that there is for a user, found by name from the root on."""
    found, waiting = [], [inodes.find(ROOT)]
    while waiting:
        inode = waiting.pop()
        found.append(inode)
        if isinstance(inode.node, Directory):
            names = [str(uid)] if isinstance(inode.node, Users) else list(inode.node.children)
            waiting += [inodes.child(inode, name) for name in names]
    return found


@given(uid=UIDS)
def test_each_number_finds_what_it_was_given_for(inodes: Inodes, uid: int) -> None:
    found = walk(inodes, uid)
    numbers = [inodes.number(inode) for inode in found]
    assert len(set(numbers)) == len(found)
    assert [inodes.find(number) for number in numbers] == found


@given(one=UIDS, other=UIDS)
def test_users_share_what_is_not_their_own_and_nothing_else(
    inodes: Inodes, one: int, other: int
) -> None:
    shared = {inodes.number(inode) for inode in walk(inodes, one)} & {
        inodes.number(inode) for inode in walk(inodes, other)
    }
    nodes: set[Node] = {inodes.find(number).node for number in shared}
    assert nodes.isdisjoint({HOME, PERSONAL}) or one == other
    assert {TREE, USERS, SHARED} <= nodes


@given(st.integers(0, 2**64 - 1))
def test_any_other_number_is_stale(inodes: Inodes, number: int) -> None:
    try:
        inode = inodes.find(number)
    except OSError as error:
        assert error.errno == errno.ESTALE  # noqa: PT017  # a number may be one that is given
    else:
        assert inodes.number(inode) == number


def test_numbers_of_no_user_are_stale(inodes: Inodes) -> None:
    last = inodes.number(Inode(PERSONAL, NOBODY - 1))
    for number in (0, last + 1, last + 1000, 2**64 - 1):
        with refused(errno.ESTALE):
            inodes.find(number)


def test_a_directorys_parent_is_where_it_was_found(inodes: Inodes) -> None:
    for directory in walk(inodes, 1000):
        if isinstance(directory.node, Directory):
            names = ["1000"] if isinstance(directory.node, Users) else directory.node.children
            for child in (inodes.child(directory, name) for name in names):
                assert inodes.parent(child) == directory
    assert inodes.parent(inodes.find(ROOT)) == inodes.find(ROOT)
