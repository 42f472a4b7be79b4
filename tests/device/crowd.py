"""Many daemons in one process, of a user each. Runs in a client's process, see client.py."""

import ctypes
import os
import threading

_PATIENCE = 20.0

_libc = ctypes.CDLL(None, use_errno=True)


def _set_uid_of_thread(uid: int) -> None:
    """Change the effective uid of this thread alone: the system call, not the C library's."""
    call = {"x86_64": 117, "aarch64": 147}[os.uname().machine]
    minus_one = ctypes.c_long(-1)
    if _libc.syscall(call, minus_one, ctypes.c_long(uid), minus_one) != 0:
        raise OSError(ctypes.get_errno(), "setresuid failed")


class _Crowd:
    """Daemons of many users, each a thread that opens the device and reads."""

    def __init__(self, path: str, uids: list[int], rounds: int) -> None:
        self._path = path
        self._rounds = rounds
        self._changed = threading.Condition()
        self.is_open: set[int] = set()
        self.packets: dict[int, bytes] = {}
        self.failures: list[str] = []
        previous = threading.stack_size(256 << 10)
        for uid in uids:
            threading.Thread(target=self._read, args=(uid,), daemon=True).start()
        threading.stack_size(previous)

    def wait(self, how_many: int) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self.failures or len(self.is_open) >= how_many, _PATIENCE
            )

    def wait_packet(self, uid: int) -> bytes:
        with self._changed:
            self._changed.wait_for(lambda: uid in self.packets, _PATIENCE)
            return self.packets[uid]

    def _read(self, uid: int) -> None:
        try:
            _set_uid_of_thread(uid)
            for _ in range(self._rounds):
                os.close(os.open(self._path, os.O_RDWR))
            descriptor = os.open(self._path, os.O_RDWR)
            with self._changed:
                self.is_open.add(uid)
                self._changed.notify_all()
            packet = os.read(descriptor, 1000)
            with self._changed:
                self.packets[uid] = packet
                self._changed.notify_all()
        except OSError as error:
            with self._changed:
                self.failures.append(f"{uid}: {error}")
                self._changed.notify_all()


_crowds: list[_Crowd] = []


def gather_crowd(path: str, uids: list[int], rounds: int = 0) -> tuple[int, list[str]]:
    """Let each user open the device and read it, in a thread of its own.

    Each opens and closes it ``rounds`` times before. How many have it open, and what failed.
    """
    crowd = _Crowd(path, uids, rounds)
    _crowds.append(crowd)
    crowd.wait(len(uids))
    return len(crowd.is_open), crowd.failures


def crowd_packets() -> dict[int, bytes]:
    """What each user of the crowd whose read has returned has read."""
    return _crowds[-1].packets


def crowd_packet(uid: int) -> bytes:
    """Wait until this user of the crowd has read a packet."""
    return _crowds[-1].wait_packet(uid)
