"""How many files of one kind a user may have open at once.

The kernel's device needs no such limit: what an open file costs there is charged to whoever opened
it. Here it costs memory of the server, which is everybody's.
"""

import errno
from collections import Counter
from collections.abc import Callable

from ecryptfs_cuse.core.errors import DeviceError


class Quota:
    """Counts open files by uid, the user's outside of user namespaces."""

    def __init__(self, files_per_user: int) -> None:
        self._most = files_per_user
        self._open: Counter[int] = Counter()

    def take(self, uid: int) -> Callable[[], None]:
        """Count one more, until what is returned is called. Raises DeviceError EMFILE."""
        if self._open[uid] >= self._most:
            raise DeviceError(errno.EMFILE, f"a user may have {self._most} of these files open")
        self._open[uid] += 1
        return lambda: self._give_back(uid)

    def _give_back(self, uid: int) -> None:
        self._open[uid] -= 1
        if not self._open[uid]:
            del self._open[uid]
