"""Packets that were recorded, not built by us: requests of a Linux kernel, answers of ecryptfsd.

The kernel is Linux 6.1 with an eCryptfs mount in public key mode; it took the answers that are
beside its requests. ecryptfsd is Debian's (ecryptfs-utils 111), on an emulated device. Both ran on
x86_64: index and data_len are little endian.
"""

from dataclasses import dataclass

import pytest

from daemon_client.protocol import (
    HELO,
    QUIT,
    Answer,
    Drop,
    Quit,
    Task,
    perform,
    receive,
    refuse,
)
from ecryptfs_cuse.wire.tags import FileKey, Tag64, Tag66, parse_file_key


class RecordedKey:
    """A key that knows one pair: a payload, and the encrypted key that a daemon made of it."""

    def __init__(self, payload: bytes, encrypted: bytes) -> None:
        self._payload, self._encrypted = payload, encrypted

    def encrypt(self, payload: bytes) -> bytes:
        assert payload == self._payload
        return self._encrypted

    def decrypt(self, ciphertext: bytes) -> bytes:
        assert ciphertext == self._encrypted
        return self._payload


@dataclass(frozen=True)
class Exchange:
    """A file key that was encrypted and decrypted again; all in hexadecimal.

    encrypt, decrypt: the two requests. encrypted, decrypted: their answers. refused: the failure
    packets for the two requests.
    """

    signature: str
    payload: str
    ciphertext: str
    counters: tuple[int, int]
    index: int
    encrypt: str
    encrypted: str
    decrypt: str
    decrypted: str
    refused: tuple[str, str]


KERNEL_16 = Exchange(
    signature="0000000000001010",
    payload="07d723f07458c3c9b52819f67e799915650838",
    ciphertext="5d8d79aa2e029993ef7243ac2423c34f3f5262",
    counters=(1, 2),
    index=0,
    encrypt="66000000012e0000000026000000421030303030303030303030303031303130"
    "1307d723f07458c3c9b52819f67e799915650838",
    encrypted="67000000011e00000000160000004300135d8d79aa2e029993ef7243ac2423c34f3f5262",
    decrypt="66000000022e0000000026000000401030303030303030303030303031303130"
    "135d8d79aa2e029993ef7243ac2423c34f3f5262",
    decrypted="67000000021e000000001600000041001307d723f07458c3c9b52819f67e799915650838",
    refused=("67000000010a000000000200000043ff", "67000000020a000000000200000041ff"),
)

KERNEL_24 = Exchange(
    signature="0000000000001018",
    payload="0884680abd821e1569da1e39f5341e98efa27109fd5b5df8210aba",
    ciphertext="52de3250e7d8444f33804463af6e44c2b5f82b53a70107a27b50e0",
    counters=(3, 4),
    index=0,
    encrypt="660000000336000000002e000000421030303030303030303030303031303138"
    "1b0884680abd821e1569da1e39f5341e98efa27109fd5b5df8210aba",
    encrypted="670000000326000000001e000000"
    "43001b52de3250e7d8444f33804463af6e44c2b5f82b53a70107a27b50e0",
    decrypt="660000000436000000002e000000401030303030303030303030303031303138"
    "1b52de3250e7d8444f33804463af6e44c2b5f82b53a70107a27b50e0",
    decrypted="670000000426000000001e000000"
    "41001b0884680abd821e1569da1e39f5341e98efa27109fd5b5df8210aba",
    refused=("67000000030a000000000200000043ff", "67000000040a000000000200000041ff"),
)

KERNEL_32 = Exchange(
    signature="0000000000001020",
    payload="095c6ea1dbf6e58721ab52c2836c25e6de15231becd480fe0aa906e513b86fdc4910ee",
    ciphertext="530634fb81acbfdd7bf10898d9367fbc844f7941b68edaa450f35cbf49e23586134ab4",
    counters=(5, 6),
    index=0,
    encrypt="66000000053e0000000036000000421030303030303030303030303031303230"
    "23095c6ea1dbf6e58721ab52c2836c25e6de15231becd480fe0aa906e513b86fdc4910ee",
    encrypted="67000000052e0000000026000000"
    "430023530634fb81acbfdd7bf10898d9367fbc844f7941b68edaa450f35cbf49e23586134ab4",
    decrypt="66000000063e0000000036000000401030303030303030303030303031303230"
    "23530634fb81acbfdd7bf10898d9367fbc844f7941b68edaa450f35cbf49e23586134ab4",
    decrypted="67000000062e0000000026000000"
    "410023095c6ea1dbf6e58721ab52c2836c25e6de15231becd480fe0aa906e513b86fdc4910ee",
    refused=("67000000050a000000000200000043ff", "67000000060a000000000200000041ff"),
)

# With a key of 2048 bits; the ciphertext itself means nothing, its size does.
_KEY = "0102030405060708090a0b0c0d0e0f10"
_CIPHERTEXT = "5a" * 256
ECRYPTFSD = Exchange(
    signature="13a050d7dceb34a3",
    payload=f"07{_KEY}0088",
    ciphertext=_CIPHERTEXT,
    counters=(1, 2),
    index=5,
    encrypt=f"66000000012e05000000260000004210313361303530643764636562333461331307{_KEY}0088",
    encrypted=f"6700000001c04c05000000040100004300c040{_CIPHERTEXT}",
    decrypt=f"6600000002c05c0500000014010000401031336130353064376463656233346133c040{_CIPHERTEXT}",
    decrypted=f"67000000021e050000001600000041001307{_KEY}0088",
    refused=("67000000010a050000000200000043ff", "67000000020a050000000200000041ff"),
)

exchanges = pytest.mark.parametrize(
    "exchange",
    [KERNEL_16, KERNEL_24, KERNEL_32, ECRYPTFSD],
    ids=["kernel 16", "kernel 24", "kernel 32", "ecryptfsd"],
)


def task_of(octets: str) -> Task:
    task = receive(bytes.fromhex(octets))
    assert isinstance(task, Task)
    return task


@exchanges
def test_recorded_requests_are_read_as_what_they_are(exchange: Exchange) -> None:
    content, ciphertext = bytes.fromhex(exchange.payload), bytes.fromhex(exchange.ciphertext)
    first, second = exchange.counters
    assert task_of(exchange.encrypt) == Task(
        first, exchange.index, Tag66(exchange.signature, content)
    )
    assert task_of(exchange.decrypt) == Task(
        second, exchange.index, Tag64(exchange.signature, ciphertext)
    )


@exchanges
def test_recorded_requests_get_the_recorded_answers_octet_by_octet(exchange: Exchange) -> None:
    key = RecordedKey(bytes.fromhex(exchange.payload), bytes.fromhex(exchange.ciphertext))
    for request, answer in (
        (exchange.encrypt, exchange.encrypted),
        (exchange.decrypt, exchange.decrypted),
    ):
        given = perform(task_of(request), key)
        assert given.octets.hex() == answer
        assert given.failure is None


@exchanges
def test_recorded_requests_are_refused_with_failure_packets_of_the_recorded_form(
    exchange: Exchange,
) -> None:
    for request, answer in zip((exchange.encrypt, exchange.decrypt), exchange.refused, strict=True):
        refused = refuse(task_of(request), "no key")
        assert refused.octets.hex() == answer
        assert refused.failure == "no key"


@pytest.mark.parametrize(
    ("octets", "signature", "cipher_code", "key_size"),
    [
        (
            "660000000736000000002e0000004210303030303030303030303030323333381b"
            "0216dfae77995699078db92ebb0922b3f417e822d7e4c068e10c8f",
            "0000000000002338",
            2,
            24,
        ),
        (
            "660000000d56000000004e0000004210303030303030303030303030323335383b"
            "0443410eaf67b19cb8d7c52d9ce75eda03d45c9f3aea2e4a9ec075c69c965b49df63669eba673d33c9"
            "2db6ffecfa71595219af5b84fe9e13221d0a",
            "0000000000002358",
            4,
            56,
        ),
        (
            "66000000113e0000000036000000421030303030303030303030303032323134"
            "230bb32559afc41035ee944574add1637f1e3ddf593ccb2e7a2a21778edaeb4f5a570edb",
            "0000000000002214",
            11,
            32,
        ),
        (
            "660000001723000000001b0000004210303030303030303030303030323166390803a6c855d8de0379",
            "00000000000021f9",
            3,
            5,
        ),
    ],
    ids=["3DES", "Blowfish", "CAST6", "CAST5"],
)
def test_keys_of_a_kernels_other_ciphers_are_read(
    octets: str, signature: str, cipher_code: int, key_size: int
) -> None:
    request = task_of(octets).request
    assert isinstance(request, Tag66)
    file_key: FileKey = parse_file_key(request.content)
    assert (request.signature, file_key.cipher_code, len(file_key.key)) == (
        signature,
        cipher_code,
        key_size,
    )


def test_what_a_kernel_says_of_a_request_that_timed_out_unread_is_dropped() -> None:
    assert receive(bytes.fromhex("660000007c")) == Drop("the requester of 124 has given up")


def test_ecryptfsd_answers_an_unknown_tag_with_41ff_and_so_do_we() -> None:
    unknown = "66000000042e0500000026000000481030313233343536373839616263646566" + "13" + "00" * 19
    answer = receive(bytes.fromhex(unknown))
    assert isinstance(answer, Answer)
    assert answer.octets.hex() == "67000000040a050000000200000041ff"


def test_helo_and_quit_are_those_of_ecryptfsd() -> None:
    assert (HELO.hex(), QUIT.hex()) == ("6400000000", "6500000000")
    assert receive(bytes.fromhex("6500000000")) == Quit()
