"""Who counts as the same user: by uid and user namespace, or as Linux 6.1 by the uid outside.

The emulator has an option for it: with ``--identity global-uid`` nothing deviates.
"""

import os
from dataclasses import dataclass

from tests.client import Client
from tests.conformance.case import Case, case, cases
from tests.conformance.daemon import READABLE, Daemon
from tests.conformance.system import AT_ONCE, OTHER_USER, ROOT, USER, Requester, System, Value


@dataclass(frozen=True)
class Who:
    """A user, perhaps in a user namespace of its own: each is one process."""

    uid: int
    prefix: tuple[str, ...] = ()

    def client(self, system: System) -> Client:
        return system.client(self.uid, *self.prefix)


_ROOT, _OUTSIDE, _OTHER = Who(ROOT), Who(USER), Who(OTHER_USER)
_AS_ROOT = "unshare", "--user", "--map-root-user"
_INSIDE, _UNMAPPED = Who(USER, _AS_ROOT), Who(USER, ("unshare", "--user"))
_ROOT_INSIDE = Who(ROOT, _AS_ROOT)


_Row = tuple[str, Value, Value, Who, Who]
"""What it says, the kernel's value and the emulator's by user namespace, and between whom it is."""


def _with_either_rule(*rows: _Row) -> list[Case]:
    found = []
    for name, kernel, emulator, *arguments in rows:
        deviation = None if emulator == kernel else ("user-namespace", emulator)
        found.append(
            case(f"by user namespace: {name}", kernel, None, *arguments, deviation=deviation)
        )
    for name, kernel, _, *arguments in rows:
        found.append(case(f"by uid: {name}", kernel, "global-uid", *arguments))
    return found


def _identify_by(system: System, rule: str | None) -> None:
    if rule is not None:
        system.identify_by(rule)


@cases(
    *_with_either_rule(
        ("a namespace's root is its user", "EINVAL", "OK", _OUTSIDE, _INSIDE),
        ("nobody in a namespace is its user", "EINVAL", "OK", _OUTSIDE, _UNMAPPED),
        ("a user outside is its namespace's root", "EINVAL", "OK", _INSIDE, _OUTSIDE),
        ("a user outside is its namespace's nobody", "EINVAL", "OK", _UNMAPPED, _OUTSIDE),
        ("two namespaces of a user are one user", "EINVAL", "OK", _INSIDE, _UNMAPPED),
        ("root in a namespace of root's is root", "EINVAL", "OK", _ROOT, _ROOT_INSIDE),
        ("a namespace's root is not root", "OK", "OK", _ROOT, _INSIDE),
        ("root is not a namespace's root", "OK", "OK", _INSIDE, _ROOT),
        ("a namespace's root is no other user", "OK", "OK", _OTHER, _INSIDE),
        ("a namespace's root has one daemon", "EINVAL", "EINVAL", _INSIDE, _INSIDE),
        ("users outside have one daemon", "EINVAL", "EINVAL", _OUTSIDE, _OUTSIDE),
    )
)
def test_second_open(system: System, rule: str | None, holder: Who, other: Who) -> Value:
    _identify_by(system, rule)
    with Daemon(holder.client(system), system.device):
        return other.client(system).call("open_file", system.device, os.O_RDWR)[0]


_ASKED, _NOT_ASKED = ("OK", READABLE), ("ENOTCONN", 0)


@cases(
    *_with_either_rule(
        ("a user asks the namespace's daemon", _ASKED, _NOT_ASKED, _INSIDE, _OUTSIDE),
        ("a namespace asks the user's daemon", _ASKED, _NOT_ASKED, _OUTSIDE, _INSIDE),
        ("root asks the daemon of a namespace of root's", _ASKED, _NOT_ASKED, _ROOT_INSIDE, _ROOT),
        ("a namespace asks its own daemon", _ASKED, _ASKED, _INSIDE, _INSIDE),
        ("a namespace does not ask root's daemon", _NOT_ASKED, _NOT_ASKED, _ROOT, _INSIDE),
        ("root does not ask a namespace's daemon", _NOT_ASKED, _NOT_ASKED, _INSIDE, _ROOT),
    )
)
def test_request(system: System, rule: str | None, holder: Who, requester: Who) -> Value:
    _identify_by(system, rule)
    with Daemon(holder.client(system), system.device) as daemon:
        asked = Requester(system, requester.client(system)).create()
        while not asked.is_over and not daemon.poll(seconds=0.05):
            pass
        events = daemon.poll()
        if events:
            daemon.answer(daemon.question())
        assert asked.when == AT_ONCE
        return asked.outcome, events
