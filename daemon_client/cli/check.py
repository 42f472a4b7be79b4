"""ecryptfs-keyd --check: try everything that the daemon would use, but the device."""

import os
import time

import click

from daemon_client.cli.errors import ConfigFailed
from daemon_client.key import Key, KeyOpenError
from daemon_client.protocol import Task, perform
from daemon_client.sources.config import Config
from daemon_client.sources.listing import Listed, listed_keys
from ecryptfs_cuse.wire.ciphers import cipher_code
from ecryptfs_cuse.wire.packet import parse_message, parse_packet
from ecryptfs_cuse.wire.tags import FileKey, Tag64, Tag66, TagRequest, build_file_key, parse_reply

_FILE_KEY_SIZE = 32  # the longest that AES has


def check_keys(config: Config) -> None:
    """Open each key, encrypt and decrypt a file key with it, and print how that went.

    Raises ConfigFailed if one cannot be used, KeyOpenError where the keys cannot be listed.
    """
    listed = listed_keys(config)
    faults = 0
    for each in listed:
        try:
            said = f"ok: {each.place}: {_checked(each, config.deadline)}"
        except KeyOpenError as error:
            faults += 1
            said = f"wrong: {each.place}: {each.module} {each.location}: {error}"
        click.echo(said)
    if not listed:
        click.echo("no keys: make one with 'ecryptfs-keyd key generate', or name one with --key")
    if not os.path.exists(config.device):
        click.echo(f"note: the device {config.device} is not there at present")
    if faults:
        raise ConfigFailed(f"{faults} of {len(listed)} keys cannot be used")


def _checked(listed: Listed, deadline: float) -> str:
    key = listed.open()
    try:
        seconds = _there_and_back(key)
    finally:
        key.close()
    if seconds > deadline:
        raise KeyOpenError(f"{seconds:.1f} s to decrypt, longer than the deadline, {deadline:g} s")
    return f"{key.signature} {listed.module}: {key.describe()}; {1000 * seconds:.0f} ms to decrypt"


def _there_and_back(key: Key) -> float:
    """Encrypt a random file key as the daemon would, and decrypt it; seconds of the latter."""
    file_key = FileKey(cipher_code("aes", _FILE_KEY_SIZE), os.urandom(_FILE_KEY_SIZE))
    payload = build_file_key(file_key)
    encrypted = _asked(key, Tag66(key.signature, payload))
    began = time.monotonic()
    decrypted = _asked(key, Tag64(key.signature, encrypted))
    if decrypted != payload:
        raise KeyOpenError("what was encrypted came back as something else")
    return time.monotonic() - began


def _asked(key: Key, request: TagRequest) -> bytes:
    answer = perform(Task(0, 0, request), key)
    if answer.failure is not None:
        raise KeyOpenError(answer.failure)
    body = parse_packet(answer.octets).body
    assert body is not None
    return parse_reply(parse_message(body).data).content
