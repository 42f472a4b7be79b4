"""Ask the daemon of a user: through control/request, and with the command line."""

import os

from ecryptfs_cuse.wire.tags import TagRequest, build_request
from tests.client import Client
from tests.mounted import MountedDevice, run_command

UNKNOWN_SIGNATURE = "0123456789abcdef"
"""No keyring has a key of this name."""


def ask(client: Client, path: str, request: TagRequest) -> bytes:
    """The answer's data, as the user of ``client`` gets them from the file ``path``."""
    return ask_octets(client, path, build_request(request))


def ask_octets(client: Client, path: str, request: bytes) -> bytes:
    """The same for a request that need not make sense."""
    fd = client.call("os.open", path, os.O_RDWR)
    try:
        client.call("os.write", fd, request)
        answer: bytes = client.call("os.read", fd, 8192)
        return answer
    finally:
        client.call("os.close", fd)


def run_request(device: MountedDevice, name: str, *arguments: str) -> tuple[int, str, str]:
    """Exit status, output and errors of ``ecryptfs-cuse request``."""
    done = run_command("request", name, "--mount", str(device.mountpoint), *arguments)
    return done.returncode, done.stdout, done.stderr
