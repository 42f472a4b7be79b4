"""What the soak finds: faults that are planted in the server, or in whoever it lets loose."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from soak import children as children_module
from soak.check import unsettled
from soak.children import Children
from soak.hanging import hanging_file
from soak.ledger import Count, Ledger
from tests.client import PATIENCE
from tests.soak.running import soak

UNTIL_FOUND = ("--minutes", "2", "--round", "1.5", "--only", "people", "--deed", "lock")
"""A fault ends the run."""


# Statements for the start of Python: in all of the run's processes, of which the server minds.
LOST_ANSWER = """
from ecryptfs_cuse.core.messaging import Request
finish, number = Request.finish, 0
def lose(self, result):
    global number
    number += 1
    if number % 50:
        finish(self, result)
Request.finish = lose
"""
REGISTERED_FOR_EVER = """
from ecryptfs_cuse.core.messaging import Messaging
exorcise = Messaging.exorcise_daemon
def keep(self, daemon):
    exorcise(self, daemon)
    if daemon.identity.euid == 30003:
        self._daemons[daemon.identity] = daemon
Messaging.exorcise_daemon = keep
"""
WRONG_USER = """
from dataclasses import replace
from ecryptfs_cuse.core.messaging import Messaging
send = Messaging.send_message
def misdirect(self, identity, data, finished):
    if identity.euid >= 30000:
        identity = replace(identity, euid=identity.euid ^ 1)
    return send(self, identity, data, finished)
Messaging.send_message = misdirect
"""
ACCEPTED_TWICE = """
from ecryptfs_cuse.core.errors import DeviceError
from ecryptfs_cuse.core.miscdev import Miscdev
write = Miscdev.write
def accept(self, daemon, octets):
    try:
        return write(self, daemon, octets)
    except DeviceError:
        return len(octets)
Miscdev.write = accept
"""
CHATTY = """
import logging
from ecryptfs_cuse.core.miscdev import Miscdev
release = Miscdev.release
def complain(self, daemon):
    logging.getLogger("x").warning("something odd")
    release(self, daemon)
Miscdev.release = complain
"""
GROWING = """
import os
from ecryptfs_cuse.core.miscdev import Miscdev
release, kept = Miscdev.release, []
def keep(self, daemon):
    kept.append((b"x" * (1 << 21), os.open("/dev/null", os.O_RDONLY)))
    release(self, daemon)
Miscdev.release = keep
"""


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (LOST_ANSWER, "No message of desired type"),
        (REGISTERED_FOR_EVER, "these are registered"),
        (WRONG_USER, "has got what is of user"),
        (ACCEPTED_TWICE, "a wrong answer was taken"),
        (CHATTY, "the server says: ecryptfs-cuse: something odd"),
        (GROWING, "the server grew from"),
    ],
    ids=["lost answer", "daemon", "wrong user", "twice", "log", "growth"],
)
def test_a_planted_fault_is_found_and_said_with_the_seed(
    tmp_path: Path, fault: str, sentence: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(fault)
    done = soak(*UNTIL_FOUND, "--seed", "1", path=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert sentence in done.stdout
    assert fault is not GROWING or "descriptors, now" in done.stdout
    assert done.stdout.endswith("soak: failed: seed 1\n")


def test_a_process_that_sigkill_does_not_end_is_told_with_where_it_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children_module, "END_SECONDS", 0.2)
    reading, writing = os.pipe()

    def hang(_rng: random.Random, _book: Ledger) -> None:
        group = os.getpgrp()
        if child := os.fork():
            os.waitpid(child, 0)
        # The file's server stays in a group of its own, and is not killed with us.
        os.setpgid(0, 0)
        descriptor = hanging_file(str(tmp_path))
        os.setpgid(0, group)
        os.write(writing, str(os.getpid()).encode())
        os.read(descriptor, 1)

    started = Children()
    started.start("somebody", 0, hang, "", 1.0)
    server = int(os.read(reading, 10))
    try:
        started.wait()
        assert started.is_stuck
        assert [fault for fault in started.faults if "does not come to an end: thread" in fault]
    finally:
        os.killpg(server, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while len(started):
        started.tick()
        assert time.monotonic() < deadline


def test_a_request_without_an_outcome_is_told() -> None:
    def forget(_rng: random.Random, book: Ledger) -> None:
        book.add(Count.BEGUN)

    started = Children()
    started.start("somebody", 0, forget, "", 10)
    started.wait()
    assert [fault for fault in started.faults if "1 requests have no outcome" in fault]


def test_what_a_process_raises_is_told_with_its_place() -> None:
    def fail(_rng: random.Random, _book: Ledger) -> None:
        raise AssertionError("a wrong answer")

    started = Children()
    started.start("somebody", 12345, fail, "abc", 10)
    started.wait()
    (fault,) = started.faults
    assert fault.startswith("somebody of user 12345 (seed abc): AssertionError: a wrong answer (")


def test_a_status_in_which_everything_is_over_is_settled() -> None:
    totals = {"requests": 6, "responses": 3, "timeouts": 2, "messages_dropped": 1}
    contexts = {"in_use": [], "free": 32, "total": 32}
    status = {"daemons": [], "contexts": contexts, "totals": totals}
    assert unsettled(status) == ""
    for requests in (4, 7):
        wrong = {**status, "totals": {**totals, "requests": requests}}
        assert "not one for each" in unsettled(wrong)
    assert "contexts are in use" in unsettled({**status, "contexts": {**contexts, "free": 31}})
    assert "are registered" in unsettled({**status, "daemons": [{"euid": 1}]})
