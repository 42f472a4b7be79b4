"""Who is calling, from /proc file systems of our own making. tests/device has the real ones."""

import logging
import os
from pathlib import Path

import pytest

from ecryptfs_cuse.fuse.caller import Caller, Proc

ROOT, USER, OTHER, UNMAPPED = 0, 1000, 1001, 65534
THREAD = 4711
WHOLE_MAP = "         0          0 4294967295\n"
PART_OF_MAP = "         0     100000      65536\n"


class FakeProc:
    """Has this process, and threads as they are added."""

    def __init__(self, root: Path, pids: str | None = None, uid_map: str = WHOLE_MAP) -> None:
        self._root = root
        self.own_namespace = self._add("self", "", "self", pids or f"{os.getpid()}")
        (root / "self" / "uid_map").write_text(uid_map)
        overflow = root / "sys" / "kernel" / "overflowuid"
        overflow.parent.mkdir(parents=True)
        overflow.write_text(f"{UNMAPPED}\n")

    def add(self, effective: int, filesystem: int, namespace: str = "") -> int:
        """The thread, with these uids; the inode number of its user namespace, its own or ours."""
        return self._add(str(THREAD), f"77\t{effective}\t78\t{filesystem}", namespace, "1")

    def proc(self) -> Proc:
        """As it is read."""
        return Proc(str(self._root))

    def hide_namespace(self) -> None:
        """As it is for ordinary users."""
        (self._root / str(THREAD) / "ns" / "user").unlink()

    def _add(self, name: str, uids: str, namespace: str, pids: str) -> int:
        (self._root / name / "ns").mkdir(parents=True)
        text = f"Name:\tx\\nUid:\t0\t0\t0\t0\nUmask:\t0022\nUid:\t{uids}\nNSpid:\t{pids}\n"
        (self._root / name / "status").write_text(text)
        link = self._root / name / "ns" / "user"
        if namespace:
            link.write_text(namespace)
        else:
            os.link(self._root / "self" / "ns" / "user", link)
        return link.stat().st_ino


def test_the_effective_uid_counts_where_the_thread_is_the_one_that_asks(tmp_path: Path) -> None:
    fake = FakeProc(tmp_path)
    fake.add(effective=USER, filesystem=OTHER)
    assert fake.proc().caller_of(THREAD, OTHER) == Caller(USER, fake.own_namespace)


def test_a_thread_is_in_its_own_user_namespace(tmp_path: Path) -> None:
    fake = FakeProc(tmp_path)
    namespace = fake.add(effective=USER, filesystem=USER, namespace="another")
    assert namespace != fake.own_namespace
    assert fake.proc().caller_of(THREAD, USER) == Caller(USER, namespace)


@pytest.mark.parametrize(("said", "asked"), [(ROOT, USER), (USER, ROOT), (USER, OTHER)])
def test_a_thread_with_another_filesystem_uid_is_not_the_one_that_asks(
    tmp_path: Path, said: int, asked: int
) -> None:
    fake = FakeProc(tmp_path)
    fake.add(effective=said, filesystem=said, namespace="another")
    assert fake.proc().caller_of(THREAD, asked) == Caller(asked, fake.own_namespace)


def test_a_namespace_that_we_may_not_see_counts_as_ours(tmp_path: Path) -> None:
    fake = FakeProc(tmp_path)
    fake.add(effective=USER, filesystem=OTHER, namespace="another")
    fake.hide_namespace()
    assert fake.proc().caller_of(THREAD, OTHER) == Caller(USER, fake.own_namespace)


@pytest.mark.parametrize("thread", [THREAD, 0, -1, 1 << 40])
def test_a_thread_that_we_cannot_see_is_who_the_request_says(tmp_path: Path, thread: int) -> None:
    fake = FakeProc(tmp_path)
    assert fake.proc().caller_of(thread, USER) == Caller(USER, fake.own_namespace)


def test_a_status_that_is_something_else_tells_nothing(tmp_path: Path) -> None:
    fake = FakeProc(tmp_path)
    fake.add(effective=ROOT, filesystem=USER)
    (tmp_path / str(THREAD) / "status").write_bytes(b"\xff" * 10000)
    assert fake.proc().caller_of(THREAD, USER) == Caller(USER, fake.own_namespace)


@pytest.mark.parametrize(
    "pids", ["23873\t{us}", "{us}\t1", "1", ""], ids=["outer", "inner", "another", "none"]
)
def test_another_pid_namespaces_proc_is_not_believed_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, pids: str
) -> None:
    fake = FakeProc(tmp_path, pids=pids.format(us=os.getpid()) or " ")
    fake.add(effective=ROOT, filesystem=USER, namespace="another")
    proc = fake.proc()
    for _ in range(2):
        assert proc.caller_of(THREAD, USER) == Caller(USER, fake.own_namespace)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "pid namespace" in caplog.text


def test_without_proc_everybody_is_who_the_request_says_in_one_namespace(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    proc = Proc(str(tmp_path))
    assert proc.caller_of(THREAD, USER) == Caller(USER, proc.own_user_namespace)
    assert proc.caller_of(THREAD, OTHER) == Caller(OTHER, proc.own_user_namespace)
    assert len(caplog.records) == 1
    assert "No such file or directory" in caplog.text


def test_our_own_proc_is_believed_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    ours = Proc()
    caller = ours.caller_of(os.getpid(), os.geteuid())
    assert caller == Caller(os.geteuid(), os.stat("/proc/self/ns/user").st_ino)
    assert caplog.records == []


def test_effective_uids_that_our_user_namespace_does_not_know_are_not_one_user(
    tmp_path: Path,
) -> None:
    fake = FakeProc(tmp_path, uid_map=PART_OF_MAP)
    fake.add(effective=UNMAPPED, filesystem=USER)
    assert fake.proc().caller_of(THREAD, USER) == Caller(USER, fake.own_namespace)


def test_where_all_uids_are_known_nobody_is_a_user_as_others(tmp_path: Path) -> None:
    fake = FakeProc(tmp_path)
    fake.add(effective=UNMAPPED, filesystem=USER)
    assert fake.proc().caller_of(THREAD, USER) == Caller(UNMAPPED, fake.own_namespace)
