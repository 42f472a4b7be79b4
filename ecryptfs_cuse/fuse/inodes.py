"""The inodes of a tree: each is a node, and of what users have for themselves, whose it is.

Nothing is stored for a user, so nothing grows with their number.
"""

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from stat import S_IFDIR
from typing import NamedTuple

from ecryptfs_cuse.fuse.node import Attributes, Directory, File, Link, Node, Users

ROOT = 1
"""The number of the tree's root, given by the kernel (FUSE_ROOT_ID)."""

NOBODY = 0xFFFFFFFF
"""The uid that is none: (uid_t)-1. All others are below it."""


VALID = 1
"""Seconds that the kernel may rely on attributes, and on what has a name: see entry_valid."""


class Inode(NamedTuple):
    """A node, and the uid of the user who has it for themselves; 0 for what is everybody's."""

    node: Node
    uid: int


class Inodes:
    """The inodes of a tree and their numbers. User 0's are the smallest: 1, 2, 3 ..."""

    def __init__(self, root: Directory) -> None:
        shared = list(_walk(root))
        users = [node for node in shared if isinstance(node, Users)]
        personal = [node for each in users for node in _walk(each.home)]
        self._nodes = [*shared, *personal]
        self._personal = frozenset(personal)
        self._places = {node: place for place, node in enumerate(self._nodes)}
        self._parents: dict[Node, Directory] = {each.home: each for each in users}
        for directory in self._nodes:
            if isinstance(directory, Directory):
                self._parents |= dict.fromkeys(directory.children.values(), directory)

    def number(self, inode: Inode) -> int:
        """The number of an inode."""
        return ROOT + inode.uid * len(self._nodes) + self._places[inode.node]

    def find(self, number: int) -> Inode:
        """The inode with that number.

        Raises OSError ESTALE where there is none: numbers come from file handles, too, which
        anybody can make up.
        """
        uid, place = divmod(number - ROOT, len(self._nodes))
        if uid == 0 or (0 < uid < NOBODY and self._nodes[place] in self._personal):
            return Inode(self._nodes[place], uid)
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def is_personal(self, node: Node) -> bool:
        """Whether each user has one."""
        return node in self._personal

    def attributes(self, inode: Inode) -> Attributes:
        """Mode, owner and times. A user's own directories are nobody else's."""
        node, uid = inode
        if isinstance(node, Directory) and self.is_personal(node):
            return replace(node.attributes, mode=S_IFDIR | 0o700, uid=uid)
        return node.attributes

    def file(self, number: int) -> File:
        """The file with that inode number. Raises OSError ESTALE, EISDIR."""
        node = self.find(number).node
        if not isinstance(node, File):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        return node

    def link(self, number: int) -> Link:
        """The link with that inode number. Raises OSError ESTALE, EINVAL."""
        node = self.find(number).node
        if not isinstance(node, Link):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return node

    def child(self, parent: Inode, name: str) -> Inode:
        """What has that name in a directory. Raises OSError ENOTDIR, ENOENT."""
        directory, uid = parent
        if not isinstance(directory, Directory):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if isinstance(directory, Users) and _is_uid(name):
            return Inode(directory.home, int(name))
        if name not in directory.children:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return Inode(directory.children[name], uid)

    def parent(self, directory: Inode) -> Inode:
        """The directory that a directory is in; the root is in itself."""
        found = self._parents.get(directory.node, directory.node)
        return Inode(found, directory.uid if self.is_personal(found) else 0)


def entry_valid(inode: Inode) -> int:
    """Seconds that the kernel may rely on where an inode is.

    None for files: their inodes share attributes, and it must ask for each user's.
    """
    return 0 if isinstance(inode.node, File) else VALID


def _is_uid(name: str) -> bool:
    # Written in one way only, or a user would have more than one directory.
    return re.fullmatch("0|[1-9][0-9]{0,9}", name) is not None and int(name) < NOBODY


def _walk(directory: Directory) -> Iterator[Node]:
    yield directory
    for child in directory.children.values():
        if isinstance(child, Directory):
            yield from _walk(child)
        else:
            yield child
