"""Who is calling: the effective uid and the user namespace of the thread that opens a file.

A FUSE request carries the *filesystem* uid, which the kernel vouches for, and the thread's id. The
kernel's device goes by the effective uid, so that is read from /proc. At open, and only there, the
caller waits for our answer and cannot go away meanwhile.

/proc is believed only where it speaks of that very thread:

* It has to be our pid namespace's. In another's the same number is somebody else.
* The thread's filesystem uid there has to be the request's. It is not where the kernel acts with
  other credentials than the thread's own: an io_uring worker keeps those it was made with.

Otherwise the caller is the request's uid, in our own user namespace.
"""

import logging
import os
import re
from dataclasses import dataclass
from functools import lru_cache

logger = logging.getLogger(__name__)

_UIDS = re.compile(rb"^Uid:\t\d+\t(\d+)\t\d+\t(\d+)$", re.MULTILINE)  # effective, filesystem
_PIDS = re.compile(rb"^NSpid:\t([\d\t]+)$", re.MULTILINE)  # one for each namespace, outside first
_STATUS_SIZE = 4096  # the lines that we want are among the first

_ALL_UIDS = 2**32 - 1
_OVERFLOW_UID = 65534
_UNKNOWN_NAMESPACE = 0  # no inode has this number


@dataclass(frozen=True, slots=True)
class Caller:
    """uid: the effective uid as this process's user namespace sees it.

    user_namespace: the inode number of the caller's user namespace.
    """

    uid: int
    user_namespace: int


def own_user_namespace() -> int:
    """The inode number of the user namespace that this process is in; 0 without /proc."""
    return _proc(os.getpid()).own_user_namespace


def caller_of(thread: int, uid: int) -> Caller:
    """Who the thread with id ``thread`` is that sent a request with ``uid`` in it.

    Never raises: where /proc does not tell (the thread is outside our pid namespace, or it is
    another user's and we are not root) the answer is ``uid``, in our own user namespace.
    """
    return _proc(os.getpid()).caller_of(thread, uid)


@lru_cache(maxsize=1)
def _proc(_process: int) -> "Proc":
    """Ours. A child may be in another pid namespace, so it looks again."""
    return Proc()


class Proc:
    """The proc(5) file system at ``root``; says in the log if it is not our pid namespace's."""

    def __init__(self, root: str = "/proc") -> None:
        self._root = root
        self._is_believed = self._is_our_pid_namespaces()
        self._ambiguous_uid = self._uid_that_may_be_anybodys()
        try:
            self.own_user_namespace = os.stat(f"{root}/self/ns/user").st_ino
        except OSError:
            self.own_user_namespace = _UNKNOWN_NAMESPACE

    def caller_of(self, thread: int, uid: int) -> Caller:
        """See the function."""
        if not self._is_believed or thread <= 0:  # 0: it is outside our pid namespace
            return Caller(uid, self.own_user_namespace)
        try:
            uids = _UIDS.search(self._read(f"{thread}/status"))
        except OSError:
            uids = None
        if uids is None or int(uids[2]) != uid:
            return Caller(uid, self.own_user_namespace)
        effective = int(uids[1])
        if effective == self._ambiguous_uid:
            effective = uid
        try:
            user_namespace = os.stat(f"{self._root}/{thread}/ns/user").st_ino
        except OSError:
            user_namespace = self.own_user_namespace
        return Caller(effective, user_namespace)

    def _is_our_pid_namespaces(self) -> bool:
        try:
            pids = _PIDS.search(self._read("self/status"))
        except OSError as error:
            why = f"cannot read {self._root}/self/status ({error.strerror})"
        else:
            # With another namespace's there are more, or there is no "self" at all.
            if pids is not None and pids[1].split() == [b"%d" % os.getpid()]:
                return True
            why = f"{self._root} is another pid namespace's"
        logger.warning(
            "%s: users are told apart by their file system uids alone, not by effective uids and "
            "user namespaces. Mount this pid namespace's own (unshare --mount-proc)",
            why,
        )
        return False

    def _uid_that_may_be_anybodys(self) -> int | None:
        """How /proc writes every uid that our user namespace does not know; None if it knows all.

        The uid of a request is never one of them: the kernel refuses those itself (EOVERFLOW).
        """
        try:
            ranges = [line.split() for line in self._read("self/uid_map").splitlines()]
            if sum(int(count) for _inside, _outside, count in ranges) == _ALL_UIDS:
                return None
            return int(self._read("sys/kernel/overflowuid"))
        except (OSError, ValueError):
            return _OVERFLOW_UID

    def _read(self, name: str) -> bytes:
        with open(f"{self._root}/{name}", "rb", buffering=0) as file:
            return file.read(_STATUS_SIZE) or b""
