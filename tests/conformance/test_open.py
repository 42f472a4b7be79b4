"""open(2): one daemon for each user, and which user that is. User namespaces: test_identity.py."""

import fcntl
import os
import select
import subprocess
from pathlib import Path

from tests.conformance.case import case, cases
from tests.conformance.daemon import Daemon, attempt
from tests.conformance.system import OTHER_USER, ROOT, USER, System, Value

HELO = bytes.fromhex("6400000000")


@cases(
    case("nobody's daemon is there: open succeeds", ("OK", "OK"), []),
    case("root's daemon is there: root's open fails, another's does not", ("EINVAL", "OK"), [ROOT]),
    case("another's daemon is there: only that user's open fails", ("OK", "EINVAL"), [USER]),
    case("each user has a daemon: no open succeeds", ("EINVAL", "EINVAL"), [ROOT, USER]),
    case("a third user's daemon is nobody else's matter", ("OK", "OK"), [OTHER_USER]),
)
def test_open_by_root_and_user(system: System, holders: list[int]) -> Value:
    daemons = [system.daemon(uid) for uid in holders]
    found = system.opened(ROOT), system.opened(USER)
    for daemon in daemons:
        daemon.close()
    return found


@cases(
    case("a second open in the same process fails", "EINVAL", 1, os.O_RDWR),
    case("a second open for reading only fails", "EINVAL", 1, os.O_RDONLY),
    case("a second open without blocking fails", "EINVAL", 1, os.O_RDWR | os.O_NONBLOCK),
    case("a second open in another process fails", "EINVAL", 2, os.O_RDWR),
)
def test_second_open(system: System, process: int, flags: int) -> Value:
    with system.daemon():
        return system.opened(process=process, flags=flags)


@cases(
    case("after close, the same process opens it again", "OK", 1),
    case("after close, another process opens it", "OK", 2),
)
def test_open_after_close(system: System, process: int) -> Value:
    system.daemon().close()
    return system.opened(process=process)


@cases(case("who has closed it cannot open it while another process has it", ("EINVAL", "OK")))
def test_open_in_turn(system: System) -> Value:
    system.daemon().close()
    with Daemon(system.client(process=2), system.device):
        while_held = system.opened()
    return while_held, system.opened()


@cases(case("three users have a daemon each", ("EINVAL",) * 3))
def test_three_users(system: System) -> Value:
    users = (ROOT, USER, OTHER_USER)
    daemons = [system.daemon(uid) for uid in users]
    found = tuple(system.opened(uid) for uid in users)
    for daemon in daemons:
        daemon.close()
    return found


@cases(case("when the holder was killed and waited for, open succeeds", "OK"))
def test_open_after_sigkill(system: System) -> Value:
    holder = system.new_client()
    holder.call("os.open", system.device, os.O_RDWR)
    holder.kill()
    holder.wait()
    return system.opened()


@cases(case("of 1000 opens one after another none fails", 0))
def test_reopen(system: System) -> Value:
    return attempt(system.client().call, "reopen", system.device, 1000)


@cases(
    case("mode 0600: root alone", ("OK", "EACCES"), 0o600, ROOT, ROOT),
    case("mode 0000: root alone", ("OK", "EACCES"), 0o000, ROOT, ROOT),
    case("mode 0660: root alone, where the group is root's", ("OK", "EACCES"), 0o660, ROOT, ROOT),
    case("mode 0660: the group's user too", ("OK", "OK"), 0o660, ROOT, USER),
    case("mode 0606: not the group's user", ("OK", "EACCES"), 0o606, ROOT, USER),
    case("mode 0606: everyone else", ("OK", "OK"), 0o606, ROOT, ROOT),
    case("mode 0600: its owner", ("OK", "OK"), 0o600, USER, ROOT),
    case("mode 0066: not its owner", ("OK", "EACCES"), 0o066, USER, ROOT),
)
def test_mode(system: System, mode: int, owner: int, group: int) -> Value:
    return _opened_with(system, mode, owner, group, os.O_RDWR)


@cases(
    case("mode 0604: to read and to write is too much", ("OK", "EACCES"), 0o604, os.O_RDWR),
    case("mode 0604: to read is allowed", ("OK", "OK"), 0o604, os.O_RDONLY),
    case("mode 0604: to write is not", ("OK", "EACCES"), 0o604, os.O_WRONLY),
    case("mode 0602: to write is allowed", ("OK", "OK"), 0o602, os.O_WRONLY),
    case("mode 0602: neither is too much", ("OK", "EACCES"), 0o602, os.O_ACCMODE),
)
def test_mode_by_access(system: System, mode: int, flags: int) -> Value:
    return _opened_with(system, mode, ROOT, ROOT, flags)


def _opened_with(system: System, mode: int, owner: int, group: int, flags: int) -> Value:
    client = system.client()
    client.call("os.chown", system.device, owner, group)
    client.call("os.chmod", system.device, mode)
    try:
        return system.opened(ROOT, flags=flags), system.opened(USER, flags=flags)
    finally:
        client.call("os.chown", system.device, ROOT, ROOT)
        client.call("os.chmod", system.device, 0o666)


@cases(
    case("real uid 0, effective uid 1000: it is 1000's daemon", "OK", (0, USER, 0)),
    case("real uid 1000, effective uid 0: it is root's daemon", "EINVAL", (USER, 0, 0)),
)
def test_which_uid(system: System, uids: tuple[int, int, int]) -> Value:
    with system.daemon():
        client = system.new_client()
        client.call("os.setresuid", *uids)
        return client.call("open_file", system.device, os.O_RDWR)[0]


@cases(case("the filesystem uid does not count", ("EINVAL", "OK")))
def test_filesystem_uid(system: System) -> Value:
    client = system.new_client()
    client.call("set_filesystem_uid", OTHER_USER)
    with system.daemon():
        while_held = client.call("open_file", system.device, os.O_RDWR)[0]
    return while_held, client.call("open_file", system.device, os.O_RDWR)[0]


@cases(
    case(
        "a daemon is its opener's for ever: after setuid, its process opens another one",
        (5, 5, "EINVAL", "EINVAL"),
    )
)
def test_setuid_after_open(system: System) -> Value:
    client = system.new_client()
    first = Daemon(client, system.device)
    client.call("os.setresuid", USER, USER, -1)
    second = Daemon(client, system.device)
    return first.write(HELO), second.write(HELO), system.opened(ROOT), system.opened(USER)


_ACCEPTED = {
    "O_RDONLY": 0x8000,
    "O_WRONLY": 0x8001,
    "O_RDWR": 0x8002,
    "O_ACCMODE": 0x8003,
    "O_RDWR|O_NONBLOCK": 0x8802,
    "O_RDWR|O_TRUNC": 0x8002,
    "O_RDONLY|O_TRUNC": 0x8000,
    "O_RDWR|O_APPEND": 0x8402,
    "O_RDWR|O_CREAT": 0x8002,
    "O_RDWR|O_NOFOLLOW": 0x28002,
    "O_RDWR|O_SYNC": 0x109002,
    "O_RDWR|O_ASYNC": 0xA002,
    "O_RDWR|O_NOCTTY": 0x8002,
    "O_RDWR|O_NOATIME": 0x48002,
    "O_RDWR|O_CLOEXEC": 0x8002,
}


def _flags(names: str) -> int:
    flags = 0
    for name in names.split("|"):
        flags |= getattr(os, name)
    return flags


@cases(
    *(
        case(f"{names} registers a daemon", (kept, "EINVAL"), _flags(names))
        for names, kept in _ACCEPTED.items()
    ),
    case("a flag that does not exist changes nothing", (0x8002, "EINVAL"), os.O_RDWR | 0x40000000),
    case("O_PATH registers nothing", (0x200000, "OK"), os.O_PATH),
    case("O_CREAT|O_EXCL is EEXIST", ("EEXIST", "OK"), os.O_RDWR | os.O_CREAT | os.O_EXCL),
    case("O_DIRECTORY is ENOTDIR", ("ENOTDIR", "OK"), os.O_RDWR | os.O_DIRECTORY),
    case("O_TMPFILE is ENOTDIR", ("ENOTDIR", "OK"), os.O_RDWR | os.O_TMPFILE),
    case("O_DIRECT is EINVAL and registers nothing", ("EINVAL", "OK"), os.O_RDWR | os.O_DIRECT),
)
def test_flags(system: System, flags: int) -> Value:
    client = system.client()
    descriptor = attempt(client.call, "os.open", system.device, flags)
    if not isinstance(descriptor, int):
        return descriptor, system.opened(process=2)
    found = client.call("fcntl.fcntl", descriptor, fcntl.F_GETFL), system.opened(process=2)
    client.call("os.close", descriptor)
    return found


@cases(
    case("O_RDONLY: neither HELO nor a poll in vain", ("EBADF", 0), os.O_RDONLY),
    case("O_WRONLY: HELO is taken", (5, 0), os.O_WRONLY),
    case("O_ACCMODE: HELO is not taken", ("EBADF", 0), os.O_ACCMODE),
    case("O_PATH: HELO is not taken, nor a poll", ("EBADF", select.POLLNVAL), os.O_PATH),
)
def test_write_and_poll_by_access_mode(system: System, flags: int) -> Value:
    with system.daemon(flags=flags) as daemon:
        return daemon.write(HELO), daemon.poll()


@cases(
    case("O_WRONLY: read is EBADF", "EBADF", os.O_WRONLY),
    case("O_ACCMODE: read is EBADF", "EBADF", os.O_ACCMODE),
    case("O_PATH: read is EBADF", "EBADF", os.O_PATH),
)
def test_read_by_access_mode(system: System, flags: int) -> Value:
    with system.daemon(flags=flags) as daemon:
        return daemon.read(100)


@cases(
    case("through a symbolic link, open succeeds", "OK", os.O_RDWR),
    case(
        "through a symbolic link with O_NOFOLLOW, it is ELOOP", "ELOOP", os.O_RDWR | os.O_NOFOLLOW
    ),
)
def test_symbolic_link(system: System, flags: int) -> Value:
    client = system.client()
    directory = client.call("make_directory")
    client.call("os.symlink", system.device, f"{directory}/link")
    return client.call("open_file", f"{directory}/link", flags)[0]


@cases(case("the same device at another place is a second open", ("EINVAL", "OK")))
def test_another_place(system: System) -> Value:
    path = Path(system.client().call("make_directory")) / "device"
    path.touch()
    subprocess.run(["mount", "--bind", system.device, str(path)], check=True)
    try:
        with system.daemon():
            while_held = system.client().call("open_file", str(path), os.O_RDWR)[0]
        return while_held, system.client().call("open_file", str(path), os.O_RDWR)[0]
    finally:
        subprocess.run(["umount", str(path)], check=True)


@cases(case("an open device opened by way of /proc/self/fd is a second open", "EINVAL"))
def test_reopen_by_proc(system: System) -> Value:
    with system.daemon() as daemon:
        path = f"/proc/self/fd/{daemon.descriptor}"
        return daemon.client.call("open_file", path, os.O_RDWR)[0]


@cases(
    case("a duplicated descriptor keeps the daemon, until the last is closed", ("EINVAL", 5, "OK"))
)
def test_duplicate(system: System) -> Value:
    daemon = system.daemon()
    duplicate = daemon.client.call("os.dup", daemon.descriptor)
    daemon.close()
    while_held = system.opened(), daemon.client.call("os.write", duplicate, HELO)
    daemon.client.call("os.close", duplicate)
    return *while_held, system.opened()


@cases(case("a forked child keeps the daemon, until it is gone", ("EINVAL", "OK")))
def test_fork(system: System) -> Value:
    client = system.new_client()
    descriptor = client.call("os.open", system.device, os.O_RDWR)
    child = client.call("fork_and_hold")
    client.call("os.close", descriptor)
    while_held = system.opened()
    client.call("reap", child)
    return while_held, system.opened()


@cases(
    case(
        "a passed descriptor is still its opener's daemon, and its holder may have one too",
        ("EINVAL", 5, "EINVAL", 0, "OK", "OK"),
    ),
)
def test_passed_descriptor(system: System) -> Value:
    daemon = system.daemon(ROOT)
    with daemon.passed_to(system.client(USER)) as passed:
        daemon.close()
        found = (
            system.opened(ROOT),
            passed.write(HELO),
            passed.write(bytes.fromhex("670000000109630000000100000078")),
            passed.poll(),
            system.opened(USER),
        )
    return *found, system.opened(ROOT)
