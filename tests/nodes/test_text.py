"""The files that hold a text."""

import errno
import os
from itertools import count

import pytest

from ecryptfs_cuse.nodes.text import TextFile
from tests.nodes.handles import CALLER, refused


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, 3, os.O_WRONLY | os.O_TRUNC])
def test_an_open_for_writing_is_refused_even_to_root(flags: int) -> None:
    with refused(errno.EACCES):
        TextFile(lambda: "375\n").open(CALLER, flags)


def test_the_text_is_read_from_any_offset() -> None:
    handle = TextFile(lambda: "375\n").open(CALLER, os.O_RDONLY)
    assert handle.seekable
    assert handle.read(4096, 0) == b"375\n"
    assert handle.read(2, 1) == b"75"
    assert handle.read(4096, 4) == b""


def test_each_open_file_tells_one_story() -> None:
    numbers = count(1)
    file = TextFile(lambda: f"story {next(numbers)}")
    first, second = file.open(CALLER, os.O_RDONLY), file.open(CALLER, os.O_RDONLY)
    assert [first.read(99, 0), second.read(99, 0), first.read(99, 0)] == [
        b"story 1",
        b"story 2",
        b"story 1",
    ]


def test_the_file_is_read_only() -> None:
    file = TextFile(lambda: "375\n")
    assert file.attributes.mode & 0o777 == 0o444
    with refused(errno.EINVAL):
        file.truncate()
    with refused(errno.EBADF):
        file.open(CALLER, os.O_RDONLY).write(b"0", 0)
