"""Fuzz what reads octets that others write: requests, the device's packets, the keyring's tokens.

    python -m fuzz                        until it is stopped, or finds a fault
    python -m fuzz -max_total_time=60     arguments are libFuzzer's
    python -m fuzz build/fuzz/crash-...   what was found once more

Inputs that reach new code are kept in build/fuzz/corpus, where the next run begins; the first one
begins with a few requests, packets and tokens as they should be. An input's first octet chooses
what reads the rest. What has to hold is in tests/daemon_client/answers.py for the daemon's answers,
in tests/fuse/any_requests.py for the channel.

Source: atheris' README; libFuzzer's documentation, "Options".
"""

import hashlib
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from struct import pack

import atheris

# Their branches are what the fuzzer is led by; so they must not have been imported before.
with atheris.instrument_imports(include=["daemon_client", "ecryptfs_cuse"]):
    from daemon_client.key import KeyOpenError, KeyOperationError
    from daemon_client.modules.openssl import OpenSsl
    from daemon_client.secret import Secret
    from ecryptfs_cuse.fuse import abi
    from ecryptfs_cuse.fuse.abi import Opcode
    from ecryptfs_cuse.wire.auth_token import (
        BLOB_MAX,
        SIZE,
        PrivateKeyToken,
        build_private_key_token,
        parse_private_key_token,
    )
    from ecryptfs_cuse.wire.errors import ParseError
    from ecryptfs_cuse.wire.packet import (
        Message,
        Packet,
        PacketType,
        build_message,
        build_packet,
    )
    from ecryptfs_cuse.wire.tags import Tag64, Tag66, build_request
    from tests.daemon_client.answers import check_answer
    from tests.fuse.any_requests import check_requests

PLACE = Path("build/fuzz")
SIGNATURE = "13a050d7dceb34a3"
SIZES = (0, 1, 2, 66, 67, 68, 191, 192, 256, 511, 512, 513, 8371, 8372, 1 << 17)
"""Octets of a key's result: about all the limits that there are."""

FAULTS = (KeyOperationError, ValueError, LookupError, OSError, MemoryError, RecursionError)


def fixed(size: int) -> Callable[[bytes], bytes]:
    """A key with results of that size, in which no octets of a request are."""
    result = hashlib.shake_128(b"result").digest(size)
    return lambda payload: result


def raising(fault: type[Exception]) -> Callable[[bytes], bytes]:
    """A key that fails so."""

    def act(payload: bytes) -> bytes:
        raise fault(payload)

    return act


def check_token(octets: bytes) -> None:
    """A token is refused, or read as what it would be built from."""
    octets = octets[: SIZE + BLOB_MAX]  # a key in the keyring holds no more
    try:
        token = parse_private_key_token(octets)
    except ParseError:
        return
    assert token.blob in octets
    assert parse_private_key_token(build_private_key_token(token)) == token


def check_blob(octets: bytes) -> None:
    """A key module's part of a token, likewise."""
    module = OpenSsl()
    try:
        location, passphrase = module.read_blob(octets)
    except KeyOpenError:
        return
    again, secret = module.read_blob(module.build_blob(location, passphrase))
    assert again == location
    assert location.encode() in octets
    assert (secret and secret.octets) == (passphrase and passphrase.octets)
    assert passphrase is None or passphrase.octets in octets


def check_packet(octets: bytes) -> None:
    """The answer to a packet of the device's is as it has to be, whatever the key does."""
    # Not by one of the octets: which key it is makes no branches that the fuzzer would look for.
    check_answer(octets, ACTS[zlib.crc32(octets) % len(ACTS)])


ACTS: tuple[Callable[[bytes], bytes] | None, ...] = (
    None,
    *map(fixed, SIZES),
    *map(raising, FAULTS),
    lambda payload: payload,
)
CHECKS = (check_packet, check_token, check_blob, check_requests)


def check(octets: bytes) -> None:
    """One input."""
    if octets:
        CHECKS[octets[0] % len(CHECKS)](octets[1:])


def seeds() -> list[bytes]:
    """Inputs as they should be, for each of CHECKS."""
    requests = [
        kind(SIGNATURE, bytes(range(1, size))) for kind in (Tag64, Tag66) for size in (20, 230)
    ]
    bodies = [build_message(Message(5, build_request(request))) for request in requests]
    packets = [build_packet(Packet(PacketType.REQUEST, 7, body)) for body in bodies]
    packets += [build_packet(Packet(kind, 7)) for kind in PacketType]
    blob = OpenSsl().build_blob("/home/me/key.pem", Secret(b"passphrase"))
    token = build_private_key_token(PrivateKeyToken(SIGNATURE, OpenSsl.alias, blob))
    return [
        *(b"\0" + packet for packet in packets),
        *(b"\1" + token, b"\2" + blob, b"\3" + kernel_requests()),
    ]


def kernel_requests() -> bytes:
    """What the kernel sends for a daemon that reads, is polled, writes, and is closed."""
    file, helo = 1, build_packet(Packet(PacketType.HELO, 0))
    bodies = (
        (Opcode.READ, pack("=QQIIQII", file, 0, 1000, abi.READ_LOCKOWNER, 0, 0, 0)),
        (Opcode.POLL, pack("=QQII", file, 7, abi.POLL_SCHEDULE_NOTIFY, 0)),
        (Opcode.WRITE, pack("=QQIIQII", file, 0, len(helo), 0, 0, 0, 0) + helo),
        (Opcode.INTERRUPT, pack("=Q", 2)),
        (Opcode.RELEASE, pack("=QIIQ", file, 0, 0, 0)),
    )
    return b"".join(bytes([opcode, len(body)]) + body for opcode, body in bodies)


def main() -> None:
    """Hand over to libFuzzer, which ends the process."""
    options = [f"-artifact_prefix={PLACE}/", *sys.argv[1:]]
    corpus = PLACE / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in seeds():
        (corpus / hashlib.sha1(seed, usedforsecurity=False).hexdigest()).write_bytes(seed)
    if all(option.startswith("-") for option in options):
        options.append(str(corpus))
    # Of options that are given twice, libFuzzer takes the last.
    atheris.Setup([sys.argv[0], *options], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
