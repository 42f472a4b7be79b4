"""The kernel's own keyrings. Each process here has a session keyring that leads to no other."""

import ctypes
import errno
import json
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from daemon_client.sources import keyring
from daemon_client.sources.keyring import Entry, KeyringError
from tests.client import PATIENCE

ROOT = Path(__file__).parent.parent.parent
NOBODY_ELSE = 54321
"""A user who has no other processes."""


def keyctl(*arguments: str, payload: bytes = b"", user: int | None = None) -> bytes:
    done = subprocess.run(
        ["keyctl", *arguments],
        input=payload,
        capture_output=True,
        check=True,
        timeout=PATIENCE,
        user=user,
        extra_groups=None if user is None else [],
    )
    return done.stdout


def alone(function: Callable[..., object], *arguments: object, user: int | None = None) -> Any:
    """What a function of this module returns in a process with a session keyring of its own."""
    program = (
        f"import json; from {__name__} import {function.__name__} as function; "
        f"print(json.dumps(function(*{arguments!r})))"
    )
    done = subprocess.run(
        ["keyctl", "session", "-", sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        user=user,
        extra_groups=None if user is None else [],
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextmanager
def removed_in_the_end(description: str) -> Iterator[None]:
    """Whatever the user keyring has under that name."""
    try:
        yield
    finally:
        found = subprocess.run(
            ["keyctl", "search", "@u", "user", description], capture_output=True, text=True
        )
        if found.returncode == 0:
            keyctl("unlink", found.stdout.strip(), "@u")


@contextmanager
def in_user_keyring(description: str, payload: bytes, user: int | None = None) -> Iterator[int]:
    """A key that keyctl puts there; its serial."""
    serial = keyctl("padd", "user", description, "@u", payload=payload, user=user).decode().strip()
    try:
        yield int(serial)
    finally:
        keyctl("unlink", serial, "@u", user=user)


@pytest.fixture
def name() -> Iterator[str]:
    """Of a key that nobody else has, removed in the end."""
    description = secrets.token_hex(8)
    with removed_in_the_end(description):
        yield description


def look(description: str) -> tuple[int | None, str | None]:
    """Its serial and payload, where there is one."""
    serial = keyring.find(description)
    return serial, None if serial is None else keyring.read(serial).decode("latin-1")


def add(description: str, payload: str) -> int:
    return keyring.add(description, payload.encode())


def cannot_add(description: str, size: int) -> str:
    return refused("add", description, bytes(size))


def listed() -> list[tuple[int, str]]:
    return [(entry.serial, entry.description) for entry in keyring.user_keys()]


def refused(name: str, *arguments: Any) -> str:
    """What a function of the module says that it cannot do."""
    try:
        getattr(keyring, name)(*arguments)
    except KeyringError as error:
        return str(error)
    raise AssertionError(f"{name} did it")


def test_a_key_is_found_and_read_by_a_process_whose_session_leads_nowhere(name: str) -> None:
    assert alone(look, name) == [None, None]
    with in_user_keyring(name, b"a payload") as serial:
        assert alone(look, name) == [serial, "a payload"]
    assert alone(look, name) == [None, None]


def test_linking_is_seen_by_nobody_else(name: str) -> None:
    with in_user_keyring(name, b"a payload") as serial:
        program = f"import {__name__} as t; t.look({name!r}); print(t.keyctl('show').decode())"
        done = subprocess.run(
            ["keyctl", "session", "-", sys.executable, "-c", program],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE,
        )
        assert "_ses" in done.stdout
        assert str(serial) not in done.stdout


def test_a_key_in_the_session_keyring_is_found_too(name: str) -> None:
    program = (
        f"import {__name__} as t; serial = t.keyctl('padd', 'user', {name!r}, '@s', payload=b'p')\n"
        f"assert t.look({name!r}) == (int(serial), 'p')"
    )
    subprocess.run(
        ["keyctl", "session", "-", sys.executable, "-c", program],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=PATIENCE,
    )
    assert keyring.find(name) is None


def test_what_is_added_outlives_the_process(name: str) -> None:
    serial = alone(add, name, "a payload")
    assert keyctl("search", "@u", "user", name).decode() == f"{serial}\n"
    assert alone(look, name) == [serial, "a payload"]


def test_adding_again_replaces_the_payload(name: str) -> None:
    serial = keyring.add(name, b"the old payload")
    assert keyring.add(name, b"new") == serial
    assert look(name) == (serial, "new")


def test_what_is_removed_is_gone(name: str) -> None:
    serial = keyring.add(name, b"a payload")
    keyring.remove(serial)
    assert keyring.find(name) is None
    assert Entry(serial, name) not in keyring.user_keys()
    assert refused("remove", serial).startswith("cannot remove from the user keyring: ")


def test_a_payload_is_1_to_32767_octets_and_comes_back_whole(name: str) -> None:
    for payload in (b"\0", secrets.token_bytes(32767), b"x"):
        serial = keyring.add(name, payload)
        assert keyring.read(serial) == payload
    for payload in (b"", bytes(32768)):
        assert (
            refused("add", name, payload)
            == f"cannot add {name!r} to the user keyring: Invalid argument"
        )
    assert look(name) == (serial, "x")


def test_an_empty_user_keyring_has_no_keys() -> None:
    assert alone(listed, user=NOBODY_ELSE) == []


def test_keys_of_type_user_are_listed_whatever_they_are_called(name: str) -> None:
    longest = (name + "; long ").ljust(4095, "x")
    with (
        in_user_keyring(name, b"1") as plain,
        in_user_keyring(longest, b"2") as long,
        in_user_keyring(f"{name};0;0;3f;\N{SNOWMAN}", b"3") as odd,
    ):
        other = int(keyctl("padd", "logon", f"{name}:a", "@u", payload=b"4"))
        try:
            mine = [each for each in alone(listed) if name in each[1]]
        finally:
            keyctl("unlink", str(other), "@u")
    assert sorted(mine) == sorted(
        [[plain, name], [long, longest], [odd, f"{name};0;0;3f;\N{SNOWMAN}"]]
    )


def test_a_revoked_key_is_not_found_and_not_read(name: str) -> None:
    with in_user_keyring(name, b"a payload") as serial:
        keyctl("revoke", str(serial))
        assert alone(look, name) == [None, None]
        # Every keyring that this process has leads to it, which is another errno.
        assert keyring.find(name) is None
        assert alone(refused, "read", serial) == f"cannot read key {serial}: Key has been revoked"
        alone(listed)


def test_an_expired_key_is_not_found_and_not_read(name: str) -> None:
    with in_user_keyring(name, b"a payload") as serial:
        keyctl("timeout", str(serial), "1")
        deadline = time.monotonic() + PATIENCE
        while keyring.find(name) is not None:
            assert time.monotonic() < deadline
        assert alone(look, name) == [None, None]
        assert alone(refused, "read", serial) == f"cannot read key {serial}: Key has expired"
        alone(listed)


def test_another_users_key_is_neither_found_nor_read_nor_removed(name: str) -> None:
    with in_user_keyring(name, b"a payload", user=NOBODY_ELSE) as serial:
        assert alone(look, name) == [None, None]
        assert alone(refused, "read", serial) == f"cannot read key {serial}: Permission denied"
        assert "cannot remove" in alone(refused, "remove", serial)
        assert [serial, name] not in alone(listed)
        assert alone(look, name, user=NOBODY_ELSE) == [serial, "a payload"]
        assert alone(listed, user=NOBODY_ELSE) == [[serial, name]]


def test_an_ordinary_user_does_not_find_the_keys_of_root(name: str) -> None:
    with in_user_keyring(name, b"a payload"):
        assert alone(look, name, user=NOBODY_ELSE) == [None, None]


def test_a_full_quota_is_explained(name: str) -> None:
    assert alone(cannot_add, name, 32767, user=NOBODY_ELSE) == (
        f"cannot add {name!r} to the user keyring: Disk quota exceeded: "
        "the quota is used up, see keyrings(7)"
    )


def look_in_threads(description: str) -> list[tuple[int | None, str | None]]:
    """From a thread that runs before the first use of the keyrings, the main one, a later one."""
    found: list[tuple[int | None, str | None]] = []
    may_look = threading.Event()

    def work() -> None:
        assert may_look.wait(PATIENCE)
        found.append(look(description))

    early = threading.Thread(target=work)
    early.start()
    found.append(look(description))
    may_look.set()
    early.join()
    late = threading.Thread(target=work)
    late.start()
    late.join()
    return found


def test_a_key_is_found_in_every_thread(name: str) -> None:
    with in_user_keyring(name, b"a payload") as serial:
        assert alone(look_in_threads, name) == [[serial, "a payload"]] * 3


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_there(*arguments: object, **options: object) -> None:
        raise OSError

    keyring._open.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", not_there)
    assert refused("find", "0" * 16).endswith("install the package libkeyutils1")


def test_a_kernel_without_keyrings_is_named() -> None:
    ctypes.set_errno(errno.ENOSYS)
    with pytest.raises(KeyringError, match=r"cannot do it: .* this kernel has no keyrings$"):
        keyring._checked(-1, "do it")
