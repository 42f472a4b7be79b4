"""control/status: numbers and identities, nothing of what messages contain."""

import json

from hypothesis import given
from hypothesis import strategies as st

from ecryptfs_cuse.core.messaging import Identity
from ecryptfs_cuse.nodes.device import identity_of
from ecryptfs_cuse.nodes.status import LISTED_MAX, status, status_text
from tests.nodes.clock import Kernel
from tests.nodes.handles import CALLER, OTHER_CALLER, Keyd

IDENTITY = identity_of(CALLER)
two_of_a_size = st.integers(0, 40).flatmap(
    lambda size: st.tuples(*[st.binary(min_size=size, max_size=size)] * 2)
)


def busy_kernel(data: bytes) -> Kernel:
    """One request answered, one timed out unread, one read, one queued, all with these data."""
    kernel = Kernel()
    keyd = Keyd(kernel)
    Keyd(kernel, OTHER_CALLER)

    def ask() -> None:
        kernel.messaging.send_message(IDENTITY, data, lambda: None)

    ask()
    keyd.next_data()
    keyd.answer(data)
    kernel.messaging.time_out(kernel.messaging.send_message(IDENTITY, data, lambda: None))
    assert kernel.miscdev.read(keyd.daemon, 5) == bytes.fromhex("66 00000002")
    ask()
    keyd.next_data()
    ask()
    return kernel


def test_a_fresh_device_has_nothing_but_free_contexts() -> None:
    assert status(Kernel().messaging) == {
        "daemons": [],
        "registered": 0,
        "contexts": {"total": 32, "per_user": None, "free": 32, "in_use": []},
        "counter": 0,
        "totals": {
            "requests": 0,
            "requests_without_daemon": 0,
            "requests_without_context": 0,
            "responses": 0,
            "responses_refused": 0,
            "timeouts": 0,
            "messages_dropped": 0,
        },
    }


def test_daemons_contexts_and_totals_are_shown() -> None:
    shown = status(busy_kernel(b"question").messaging)
    assert shown["daemons"] == [
        {
            "euid": CALLER.uid,
            "user_namespace": CALLER.user_namespace,
            "flags": ["MISCDEV_OPEN"],
            "queued": 1,
        },
        {
            "euid": OTHER_CALLER.uid,
            "user_namespace": OTHER_CALLER.user_namespace,
            "flags": ["MISCDEV_OPEN"],
            "queued": 0,
        },
    ]
    assert shown["contexts"] == {
        "total": 32,
        "per_user": None,
        "free": 30,
        "in_use": [
            {"index": 0, "counter": 3, "euid": CALLER.uid},
            {"index": 1, "counter": 4, "euid": CALLER.uid},
        ],
    }
    assert shown["counter"] == 4
    assert shown["totals"] == {
        "requests": 4,
        "requests_without_daemon": 0,
        "requests_without_context": 0,
        "responses": 1,
        "responses_refused": 0,
        "timeouts": 1,
        "messages_dropped": 0,
    }


def test_a_daemon_with_a_reader_inside_shows_the_flag() -> None:
    kernel = Kernel()
    keyd = Keyd(kernel)
    kernel.miscdev.read(keyd.daemon, 4096)
    assert status(kernel.messaging)["daemons"][0]["flags"] == ["IN_READ", "MISCDEV_OPEN"]


def test_what_was_shown_does_not_change_afterwards() -> None:
    kernel = busy_kernel(b"question")
    shown = status(kernel.messaging)
    before = json.dumps(shown)
    kernel.messaging.shut_down()
    assert json.dumps(shown) == before


def test_with_many_daemons_and_contexts_the_text_lists_some_and_counts_all() -> None:
    kernel = Kernel(message_buf_len=5000)
    identities = [Identity(uid, CALLER.user_namespace) for uid in range(5000)]
    for identity in identities:
        kernel.miscdev.open(identity, lambda: None)
        kernel.messaging.send_message(identity, b"", lambda: None)
    text = status_text(kernel.messaging)
    shown = json.loads(text)
    assert [daemon["euid"] for daemon in shown["daemons"]] == list(range(LISTED_MAX))
    assert [context["index"] for context in shown["contexts"]["in_use"]] == list(range(LISTED_MAX))
    assert (shown["registered"], shown["contexts"]["free"]) == (5000, 0)
    assert len(text) < 1_000_000
    assert len(status(kernel.messaging)["daemons"]) == 5000


def test_each_daemon_and_each_context_has_a_line() -> None:
    lines = status_text(busy_kernel(b"question").messaging).splitlines()
    assert sum('"user_namespace"' in line for line in lines) == 2
    assert sum('"index"' in line for line in lines) == 2
    assert max(len(line) for line in lines) < 200


def test_the_text_is_the_same_in_json() -> None:
    messaging = busy_kernel(b"question").messaging
    text = status_text(messaging)
    assert json.loads(text) == status(messaging)
    assert text.endswith("}\n")


@given(two_of_a_size)
def test_the_text_is_the_same_whatever_the_messages_contain(data: tuple[bytes, bytes]) -> None:
    one, other = data
    assert status_text(busy_kernel(one).messaging) == status_text(busy_kernel(other).messaging)
