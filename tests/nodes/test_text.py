"""The files that hold a text."""

import errno
import os
from itertools import count

import pytest

from ecryptfs_cuse.fuse.caller import Caller
from ecryptfs_cuse.nodes.text import TEXTS_MAX, TextFile
from tests.nodes.handles import CALLER, OTHER_CALLER, refused


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


def test_open_files_share_a_text_until_it_changes() -> None:
    texts = [20_000 * "one"]
    file = TextFile(lambda: texts[-1][:30_000] + texts[-1][30_000:])
    first, second = file.open(CALLER, os.O_RDONLY), file.open(CALLER, os.O_RDONLY)
    texts.append("other")
    third = file.open(CALLER, os.O_RDONLY)
    assert first.read(1 << 20, 0) == second.read(1 << 20, 0) == texts[0].encode()
    assert third.read(1 << 20, 0) == b"other"
    assert first.read(1 << 20, 0) is second.read(1 << 20, 0)  # a slice that is whole is no copy


def test_a_user_may_have_so_many_open_and_other_users_do_not_count() -> None:
    file = TextFile(lambda: "375\n", files_per_user=2)
    first = file.open(CALLER, os.O_RDONLY)
    file.open(CALLER, os.O_RDONLY)
    inside = Caller(CALLER.uid, CALLER.user_namespace + 1)
    for caller in (CALLER, inside):
        with refused(errno.EMFILE):
            file.open(caller, os.O_RDONLY)
    assert file.open(OTHER_CALLER, os.O_RDONLY).read(99, 0) == b"375\n"
    first.release()
    file.open(CALLER, os.O_RDONLY)


def test_the_file_is_read_only() -> None:
    file = TextFile(lambda: "375\n")
    assert file.attributes.mode & 0o777 == 0o444
    with refused(errno.EINVAL):
        file.truncate()
    with refused(errno.EBADF):
        file.open(CALLER, os.O_RDONLY).write(b"0", 0)


def test_texts_that_are_held_open_take_so_much_memory_and_no_more() -> None:
    numbers = count(1)
    size = 1 << 18
    file = TextFile(lambda: f"{next(numbers):{size}}")
    handles = [file.open(Caller(uid, 1), os.O_RDONLY) for uid in range(100)]
    kept = TEXTS_MAX // size
    for handle in handles[:-kept]:
        with refused(errno.ESTALE):
            handle.read(size, 0)
    for number, handle in enumerate(handles[-kept:], 101 - kept):
        assert int(handle.read(size, 0) or b"") == number
    for handle in handles:
        handle.release()
    again = file.open(CALLER, os.O_RDONLY)
    assert int(again.read(size, 0) or b"") == 101


def test_texts_that_nobody_has_open_push_out_none() -> None:
    numbers = count(1)
    size = 1 << 20
    file = TextFile(lambda: f"{next(numbers):{size}}")
    held = file.open(CALLER, os.O_RDONLY)
    for _ in range(20):
        file.open(CALLER, os.O_RDONLY).release()
    assert int(held.read(size, 0) or b"") == 1
