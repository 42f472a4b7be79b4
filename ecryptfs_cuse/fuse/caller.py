"""Who is calling: the effective uid and the user namespace of the thread that opens a file.

A FUSE request carries the *filesystem* uid and the thread's id. The kernel's device goes by the
effective uid, so it is read from /proc. At open, and only there, the caller waits for our answer
and cannot go away meanwhile.
"""

import os
import re
from dataclasses import dataclass

_EFFECTIVE_UID = re.compile(rb"^Uid:\t\d+\t(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Caller:
    """uid: the effective uid as this process's user namespace sees it.

    user_namespace: the inode number of the caller's user namespace.
    """

    uid: int
    user_namespace: int


def own_user_namespace() -> int:
    """The inode number of the user namespace that this process is in."""
    return os.stat("/proc/self/ns/user").st_ino


def caller_of(thread: int, uid: int) -> Caller:
    """Who the thread with id ``thread`` is.

    Where /proc does not tell (the thread is in a pid namespace that we cannot see, or it is another
    user's and we are not root) the answer is ``uid``, from the request, in our own user namespace.
    """
    try:
        with open(f"/proc/{thread}/status", "rb", buffering=0) as status:
            found = _EFFECTIVE_UID.search(status.read(4096))
        if found is not None:
            uid = int(found[1])
    except OSError:
        pass
    try:
        user_namespace = os.stat(f"/proc/{thread}/ns/user").st_ino
    except OSError:
        user_namespace = own_user_namespace()
    return Caller(uid, user_namespace)
