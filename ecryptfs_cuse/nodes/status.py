"""The content of control/status: who is registered and what is under way, as JSON.

Numbers and identities only; nothing of what messages contain.

It is made at each open, and everybody else waits meanwhile: so it lists ``LISTED_MAX`` daemons and
contexts at most, those that came first and those of the lowest index.
"""

import json
from itertools import islice
from typing import Any

from ecryptfs_cuse.core.messaging import DaemonFlag, Messaging

LISTED_MAX = 4096
"""Of daemons, and of contexts in use. Made in milliseconds, the text has half a megabyte then."""

_FLAGS = {
    bits: [flag.name for flag in DaemonFlag if bits & flag] for bits in range(2 * max(DaemonFlag))
}


def status(messaging: Messaging, listed_max: int | None = None) -> dict[str, Any]:
    """The emulated kernel side in numbers.

    daemons: euid, user_namespace, flags by name, and how many packets each has not read.
    registered: how many daemons there are, listed or not.
    contexts: how many there are, how many one user may use (None: all), how many are free, and
    those in use with index, counter, euid.
    counter: that of the request accepted last. totals: what happened since the start.
    listed_max: how many daemons, and how many contexts in use, are listed; None for all.
    """
    in_use = (context for context in messaging.contexts if context.request is not None)
    return {
        "daemons": [
            {
                "euid": daemon.identity.euid,
                "user_namespace": daemon.identity.user_namespace,
                "flags": list(_FLAGS[daemon.flags]),
                "queued": len(daemon.out_queue),
            }
            for daemon in islice(messaging.daemons, listed_max)
        ],
        "registered": messaging.registered,
        "contexts": {
            "total": len(messaging.contexts),
            "per_user": messaging.contexts_per_user,
            "free": messaging.free_contexts,
            "in_use": [
                {
                    "index": context.index,
                    "counter": context.counter,
                    "euid": context.request.identity.euid,
                }
                for context in islice(in_use, listed_max)
                if context.request is not None
            ],
        },
        "counter": messaging.counter,
        "totals": vars(messaging.totals).copy(),
    }


def status_text(messaging: Messaging) -> str:
    """``status`` as the file has it, with a line for each daemon and each context.

    json can indent, but then takes six times as long.
    """
    return json.dumps(status(messaging, LISTED_MAX)).replace("{", "\n{").lstrip() + "\n"
