"""The content of control/status: who is registered and what is under way, as JSON.

Numbers and identities only; nothing of what messages contain.
"""

import json
from typing import Any

from ecryptfs_cuse.core.messaging import DaemonFlag, Messaging


def status(messaging: Messaging) -> dict[str, Any]:
    """The emulated kernel side in numbers.

    daemons: euid, user_namespace, flags by name, and how many packets each has not read.
    contexts: how many there are, how many are free, and those in use with index, counter, euid.
    counter: that of the request accepted last. totals: what happened since the start.
    """
    return {
        "daemons": [
            {
                "euid": daemon.identity.euid,
                "user_namespace": daemon.identity.user_namespace,
                "flags": [flag.name for flag in DaemonFlag if daemon.flags & flag],
                "queued": len(daemon.out_queue),
            }
            for daemon in messaging.daemons
        ],
        "contexts": {
            "total": len(messaging.contexts),
            "free": messaging.free_contexts,
            "in_use": [
                {
                    "index": context.index,
                    "counter": context.counter,
                    "euid": context.request.identity.euid,
                }
                for context in messaging.contexts
                if context.request is not None
            ],
        },
        "counter": messaging.counter,
        "totals": vars(messaging.totals).copy(),
    }


def status_text(messaging: Messaging) -> str:
    """``status`` as the file has it."""
    return json.dumps(status(messaging), indent=2) + "\n"
