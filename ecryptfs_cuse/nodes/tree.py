"""The tree that is mounted.

    dev/ecryptfs                            the device
    sys/fs/ecryptfs/version                 the version mask
    sys/module/ecryptfs/parameters/*        the limits; Linux itself does not show them
    control/request                         raise a request as the calling user
    control/status                          daemons, contexts, counters
    users/UID/                              where dev and control lead the user UID

Each file's behaviour is in a module of its own. What users write to, each has for themselves: see
fuse/node.py, Users.
"""

from decimal import Decimal

from ecryptfs_cuse.core.messaging import Messaging
from ecryptfs_cuse.fuse.node import Directory, Link, Node, Users
from ecryptfs_cuse.nodes.device import DeviceFile, IdentityRule
from ecryptfs_cuse.nodes.exchange import Exchange
from ecryptfs_cuse.nodes.parameters import Parameters
from ecryptfs_cuse.nodes.request import RequestFile
from ecryptfs_cuse.nodes.status import status_text
from ecryptfs_cuse.nodes.text import TextFile

VERSION_MASK = 375
"""What Linux 6.1 shows in /sys/fs/ecryptfs/version: which features the module has, as bits."""

STATUS_FILES_PER_USER = 32
"""How many control/status a user may have open: each may hold a text of its own."""


def device_tree(
    device: DeviceFile,
    messaging: Messaging,
    exchange: Exchange,
    parameters: Parameters,
    rule: IdentityRule,
) -> Directory:
    """Everything that is mounted, around ``device``."""
    values: dict[str, Node] = {name: _line(value) for name, value in parameters.shown().items()}
    home = Directory(
        {
            "dev": Directory({"ecryptfs": device}),
            "control": Directory(
                {
                    "request": RequestFile(exchange, rule),
                    "status": TextFile(lambda: status_text(messaging), STATUS_FILES_PER_USER),
                }
            ),
        }
    )
    return Directory(
        {
            **{name: Link("users", name) for name in home.children},
            "sys": Directory(
                {
                    "fs": Directory({"ecryptfs": Directory({"version": _line(VERSION_MASK)})}),
                    "module": Directory({"ecryptfs": Directory({"parameters": Directory(values)})}),
                }
            ),
            "users": Users(home),
        }
    )


def _line(value: float) -> TextFile:
    """All digits and no exponent, as in sysfs; a whole number without a point."""
    digits = f"{Decimal(str(value)):f}".removesuffix(".0")
    return TextFile(lambda: f"{digits}\n")
