"""The kernel's list of mounts, and which mount is where.

A path is not a mount: others mount on top, move what we mounted, rename the directories above. So a
mount is known here by its id and its device number (proc(5), mountinfo), and its path is looked up
when it is needed.
"""

import os
import re
import select
from dataclasses import dataclass

FSNAME = "ecryptfs-cuse"
_FSTYPE = f"fuse.{FSNAME}"


class MountError(Exception):
    """The file system could not be mounted or unmounted; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the list.

    id: not used twice while its mount is in the list.
    parent: the id of the mount that it is mounted on.
    device: the device number of the file system, as "major:minor".
    path: where it is now.
    """

    id: int
    parent: int
    device: str
    path: str
    fstype: str

    @property
    def is_ours(self) -> bool:
        """Whether it is a device of ecryptfs-cuse, whoever mounted it."""
        return self.fstype == _FSTYPE


def entries() -> dict[int, Entry]:
    """All mounts that this process can reach, by their ids. Raises MountError without /proc."""
    try:
        with open("/proc/self/mountinfo", "rb") as lines:
            return {entry.id: entry for entry in map(_entry, lines)}
    except OSError as error:
        raise MountError(
            f"cannot read /proc/self/mountinfo: {error.strerror}: is /proc mounted?"
        ) from error


def _entry(line: bytes) -> Entry:
    fields = line.split(b" ")
    return Entry(
        id=int(fields[0]),
        parent=int(fields[1]),
        device=fields[2].decode(),
        path=os.fsdecode(
            re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), fields[4])
        ),
        fstype=os.fsdecode(fields[fields.index(b"-") + 1]),
    )


def entry_of(descriptor: int) -> Entry:
    """The mount that an open file is in. Raises MountError where it is in none."""
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as lines:
        [mount_id] = [int(line.split()[1]) for line in lines if line.startswith("mnt_id:")]
    try:
        return entries()[mount_id]
    except KeyError:
        raise MountError(f"{path_of(descriptor)} was unmounted meanwhile: try again") from None


def path_of(descriptor: int) -> str:
    """The path of an open file, without symbolic links."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError as error:
        raise MountError(
            f"cannot read /proc/self/fd: {error.strerror}: is /proc mounted?"
        ) from error


def stack(path: str) -> list[Entry]:
    """What is mounted at ``path``, the topmost first: that is the one which the path leads to.

    ``path`` has no symbolic links. Asks no server. Raises OSError where the path leads nowhere.
    """
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        entry: Entry | None = entry_of(descriptor)
    finally:
        os.close(descriptor)
    everything = entries()
    found = []
    while entry is not None and entry.path == path:
        found.append(entry)
        entry = everything.get(entry.parent)
    return found


class MountWatch:
    """Tells when a mount is gone from the list. It may be gone with files still open in it."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._list = open("/proc/self/mountinfo", "rb")  # noqa: SIM115  # held until close
        self._changes = select.epoll()
        self._changes.register(self._list, select.EPOLLPRI | select.EPOLLET)

    def fileno(self) -> int:
        """A descriptor that is readable when the list has changed."""
        return self._changes.fileno()

    def is_mounted(self) -> bool:
        """Whether the mount is in the list; waits for the next change from here on."""
        self._changes.poll(0)
        return now(self._entry) is not None

    def close(self) -> None:
        """Stop watching."""
        self._changes.close()
        self._list.close()


def now(entry: Entry) -> Entry | None:
    """The same mount as it is now, None where it is gone."""
    found = entries().get(entry.id)
    return found if found is not None and found.device == entry.device else None
