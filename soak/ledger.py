"""What processes count, where it is safe from their death: memory that they share with us."""

import mmap
from collections import Counter
from enum import IntEnum, auto
from struct import Struct

_CELL = Struct("=Q")


class Count(IntEnum):
    """What is counted."""

    BEGUN = 0
    """Requests that are about to be written."""
    ANSWERED = auto()
    NO_DAEMON = auto()
    """ENOTCONN."""
    NO_CONTEXT = auto()
    """ENOMEM."""
    TIMED_OUT = auto()
    """ENOMSG."""
    ABANDONED = auto()
    """Closed before the answer."""
    GONE = auto()
    """Killed with its requester."""
    DAEMONS = auto()
    READ = auto()
    """Messages that daemons read."""
    RESPONDED = auto()
    REFUSED = auto()
    DEEDS = auto()
    """What the vicious have done, and got through with."""
    CALLS = auto()
    """System calls at random."""
    PROCESSES = auto()
    """Processes that made them."""
    WORST_NS = auto()
    """The longest honest exchange."""
    SINCE_NS = auto()
    """When the honest exchange under way has begun."""


OUTCOMES = (
    Count.ANSWERED,
    Count.NO_DAEMON,
    Count.NO_CONTEXT,
    Count.TIMED_OUT,
    Count.ABANDONED,
    Count.GONE,
)


class Ledger:
    """One process's counts. Made before it is forked; only one process may write."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, len(Count) * _CELL.size)

    def __getitem__(self, what: Count) -> int:
        (value,) = _CELL.unpack_from(self._memory, what * _CELL.size)
        return int(value)

    def __setitem__(self, what: Count, value: int) -> None:
        _CELL.pack_into(self._memory, what * _CELL.size, value)

    def add(self, what: Count, number: int = 1) -> None:
        """Count something."""
        self[what] += number

    def close(self) -> Counter[Count]:
        """What was counted, once the process is gone."""
        counted = Counter({what: self[what] for what in Count})
        self._memory.close()
        return counted
