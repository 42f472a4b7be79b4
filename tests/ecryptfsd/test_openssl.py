"""One key, one device, two daemons: ecryptfsd and ecryptfs-keyd in each other's place.

ecryptfsd is Debian's, with our key module openssl, and both find the key by its token in the user
keyring.
"""

import errno
import os
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path

import pytest

from daemon_client.modules.openssl import OpenSsl, PemKey
from daemon_client.secret import Secret
from ecryptfs_cuse.core.keystore import decrypted_key, encrypted_key
from ecryptfs_cuse.wire.ciphers import cipher_code
from ecryptfs_cuse.wire.tags import (
    FileKey,
    Tag64,
    Tag66,
    build_file_key,
    build_request,
)
from tests.client import Client
from tests.conftest import ClientFactory
from tests.ecryptfsd.auth_token import (
    in_user_keyring,
    password_token_in_user_keyring,
    private_key_token,
)
from tests.ecryptfsd.conftest import DaemonFactory
from tests.ecryptfsd.daemon import RealDaemon
from tests.ecryptfsd.exchange import UNKNOWN_SIGNATURE, ask_octets
from tests.ecryptfsd.key_modules import copy_with_openssl
from tests.ecryptfsd.keyd import OurDaemon
from tests.mounted import MountedDevice

REAL, OURS = "ecryptfsd", "ecryptfs-keyd"
PASSPHRASE = b"correct horse"
FAILED_64, FAILED_66 = "41ff", "43ff"
NO_ANSWER = os.strerror(errno.ENOMSG)

PemFactory = Callable[[int, bytes | None], "Pem"]
Serve = Callable[[str], AbstractContextManager[None]]
Give = Callable[[bytes], bytes]


class Pem:
    """A new key in a PEM file, which is encrypted if there is a passphrase."""

    def __init__(self, path: Path, bits: int, passphrase: bytes | None) -> None:
        self.path = path
        self.passphrase = None if passphrase is None else Secret(passphrase)
        OpenSsl().generate(str(path), self.passphrase, bits)
        self.key: PemKey = OpenSsl().open(str(path), self.passphrase)
        self.signature = self.key.signature

    def token(self) -> AbstractContextManager[None]:
        """Have its token in the user keyring for the time of a block."""
        blob = OpenSsl().build_blob(str(self.path), self.passphrase)
        return in_user_keyring(self.signature, private_key_token(self.signature, "openssl", blob))


@pytest.fixture(scope="session")
def pems(tmp_path_factory: pytest.TempPathFactory) -> PemFactory:
    """Keys by size and passphrase, each made once."""
    directory = tmp_path_factory.mktemp("keys")

    @cache
    def factory(bits: int, passphrase: bytes | None) -> Pem:
        form = "plain" if passphrase is None else "encrypted"
        return Pem(directory / f"{form}{bits}.pem", bits, passphrase)

    return factory


@pytest.fixture
def pem(pems: PemFactory) -> Iterator[Pem]:
    """A key of 2048 bits in a plain file, with its token in the user keyring."""
    made = pems(2048, None)
    with made.token():
        yield made


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("modules")
    copy_with_openssl(directory)
    return directory


@pytest.fixture
def key_modules(compiled: Path) -> Path:
    """Debian's key modules, and ours."""
    return compiled


@pytest.fixture
def asker(clients: ClientFactory) -> Client:
    return clients()


@pytest.fixture
def serve(device: MountedDevice, daemons: DaemonFactory, asker: Client, transport: str) -> Serve:
    """Have a daemon, REAL or OURS, answer for the time of a block; then it has gone."""

    @contextmanager
    def real() -> Iterator[None]:
        daemon: RealDaemon = daemons(device)
        daemon.wait_reading()
        yield
        # Not before it reads again: else it might end before the packet that is to end its read.
        daemon.wait_reading()
        daemon.kill(signal.SIGTERM)
        if transport == "pyfuse3":
            # No signal ends a read there, but a packet does. Nobody waits for its answer.
            fd = asker.call("os.open", device.request_path, os.O_RDWR)
            asker.call("os.write", fd, build_request(Tag64(UNKNOWN_SIGNATURE, b"")))
            asker.call("os.close", fd)
        assert daemon.wait() == 0

    @contextmanager
    def ours() -> Iterator[None]:
        with OurDaemon(device) as daemon:
            yield
            daemon.stop()

    @contextmanager
    def factory(name: str) -> Iterator[None]:
        with {REAL: real, OURS: ours}[name]():
            yield
        device.wait_status("daemons", equals=[])

    return factory


@pytest.fixture
def give(device: MountedDevice, asker: Client) -> Give:
    """The data of the answer to a request's octets."""
    return lambda octets: ask_octets(asker, device.request_path, octets)


def new_payload(size: int) -> bytes:
    return build_file_key(FileKey(cipher_code("aes", size), secrets.token_bytes(size)))


def encrypt(pem: Pem, payload: bytes) -> bytes:
    return build_request(Tag66(pem.signature, payload))


def decrypt(pem: Pem, ciphertext: bytes) -> bytes:
    return build_request(Tag64(pem.signature, ciphertext))


either_way = pytest.mark.parametrize(
    ("first", "second"), [(REAL, OURS), (OURS, REAL)], ids=["then ours", "then the real one"]
)


@either_way
@pytest.mark.parametrize("bits", [1024, 2048, 4096])
@pytest.mark.parametrize("passphrase", [None, PASSPHRASE], ids=["plain", "encrypted"])
def test_what_one_daemon_has_encrypted_the_other_decrypts_with_the_same_key(
    serve: Serve,
    give: Give,
    pems: PemFactory,
    bits: int,
    passphrase: bytes | None,
    first: str,
    second: str,
) -> None:
    pem = pems(bits, passphrase)
    payloads = [new_payload(size) for size in (16, 24, 32)]
    with pem.token():
        with serve(first):
            ciphertexts = [encrypted_key(give(encrypt(pem, payload))) for payload in payloads]
        assert {len(ciphertext) for ciphertext in ciphertexts} == {bits // 8}
        with serve(second):
            answers = [give(decrypt(pem, ciphertext)) for ciphertext in ciphertexts]
    assert [build_file_key(decrypted_key(answer)) for answer in answers] == payloads


def test_a_short_ciphertext_has_an_octet_behind_it_from_ecryptfsd_alone(
    serve: Serve, give: Give, pems: PemFactory
) -> None:
    pem = pems(1024, None)
    request = encrypt(pem, new_payload(16))
    with pem.token():
        with serve(REAL):
            real = give(request)
        with serve(OURS):
            ours = give(request)
    assert (len(real), len(ours)) == (3 + 128 + 1, 3 + 128)
    assert real[:3] == ours[:3] == bytes.fromhex("430080")


def same_requests(pem: Pem) -> dict[str, tuple[bytes, str]]:
    """Requests, and what both daemons answer, in hexadecimal."""
    payload = new_payload(32)
    good = pem.key.encrypt(payload)
    altered = bytes((good[0] ^ 1,)) + good[1:]
    unknown = Tag64(UNKNOWN_SIGNATURE, good)
    return {
        "decrypt": (decrypt(pem, good), f"4100{len(payload):02x}{payload.hex()}"),
        "decrypt, unknown signature": (build_request(unknown), FAILED_64),
        "encrypt, unknown signature": (
            build_request(Tag66(UNKNOWN_SIGNATURE, payload)),
            FAILED_66,
        ),
        "unknown tag, unknown signature": (b"\x48" + build_request(unknown)[1:], FAILED_64),
        "decrypt, zeros": (decrypt(pem, bytes(len(good))), FAILED_64),
        "decrypt, above the modulus": (decrypt(pem, b"\xff" * len(good)), FAILED_64),
        "decrypt, first octet altered": (decrypt(pem, altered), FAILED_64),
        "decrypt, last octet altered": (
            decrypt(pem, good[:-1] + bytes((good[-1] ^ 1,))),
            FAILED_64,
        ),
        "decrypt, an octet too few": (decrypt(pem, good[:-1]), FAILED_64),
        "decrypt, an octet too many": (decrypt(pem, good + b"\0"), FAILED_64),
        "decrypt, one octet": (decrypt(pem, b"\1"), FAILED_64),
        "decrypt, nothing": (decrypt(pem, b""), FAILED_64),
        "encrypt, an octet more than the key takes": (encrypt(pem, bytes(256 - 41)), FAILED_66),
        "decrypt, after all that": (decrypt(pem, good), f"4100{len(payload):02x}{payload.hex()}"),
    }


def test_swapped_under_the_same_requests_they_answer_with_the_same_octets(
    serve: Serve, give: Give, pem: Pem
) -> None:
    requests = same_requests(pem)
    expected = {name: answer for name, (_, answer) in requests.items()}
    with serve(REAL):
        assert {name: give(octets).hex() for name, (octets, _) in requests.items()} == expected
    with serve(OURS):
        assert {name: give(octets).hex() for name, (octets, _) in requests.items()} == expected


@pytest.mark.parametrize("daemon", [REAL, OURS])
def test_a_key_that_its_token_does_not_open_fails_with_both(
    serve: Serve, give: Give, pems: PemFactory, tmp_path: Path, daemon: str
) -> None:
    pem = pems(2048, PASSPHRASE)
    plain = pems(2048, None)
    blob = OpenSsl().build_blob
    tokens = {
        "wrong passphrase": ("openssl", blob(str(pem.path), Secret(b"wrong"))),
        "no passphrase": ("openssl", blob(str(pem.path), None)),
        "no such file": ("openssl", blob(str(tmp_path / "none.pem"), None)),
        "no such module": ("nonesuch", blob(str(pem.path), pem.passphrase)),
        "no blob": ("openssl", b""),
        "a blob that is cut off": ("openssl", blob(str(pem.path), pem.passphrase)[:20]),
    }
    answers = {}
    with serve(daemon):
        for name, (alias, octets) in tokens.items():
            with in_user_keyring(pem.signature, private_key_token(pem.signature, alias, octets)):
                answers[name] = (
                    give(encrypt(pem, new_payload(16))).hex(),
                    give(decrypt(pem, pem.key.encrypt(new_payload(16)))).hex(),
                )
        with plain.token():
            assert give(encrypt(plain, new_payload(16)))[:2] == b"\x43\0"
    assert answers == dict.fromkeys(tokens, (FAILED_66, FAILED_64))


@pytest.mark.parametrize("daemon", [REAL, OURS])
def test_a_token_of_a_passphrase_is_nothing_that_either_can_decrypt_with(
    serve: Serve, give: Give, daemon: str
) -> None:
    with (
        password_token_in_user_keyring(secrets.token_hex(8)) as (signature, _),
        serve(daemon),
    ):
        assert give(build_request(Tag64(signature, bytes(256)))).hex() == FAILED_64
        assert give(build_request(Tag66(signature, new_payload(16)))).hex() == FAILED_66


@pytest.mark.parametrize("daemon", [REAL, OURS])
def test_a_token_that_comes_and_goes_while_a_daemon_runs_counts_at_once(
    serve: Serve, give: Give, pems: PemFactory, daemon: str
) -> None:
    pem = pems(2048, None)
    request = encrypt(pem, new_payload(16))
    with serve(daemon):
        assert give(request).hex() == FAILED_66
        with pem.token():
            assert give(request)[:2] == b"\x43\0"
        assert give(request).hex() == FAILED_66


# Where ecryptfs-keyd is better on purpose: what ecryptfsd does instead, and what we do.


def unknown_tag(pem: Pem) -> bytes:
    return b"\x48" + decrypt(pem, bytes(256))[1:]


def test_an_unknown_tag_with_a_known_signature_gets_no_answer_from_ecryptfsd(
    serve: Serve, give: Give, pem: Pem
) -> None:
    with serve(REAL), pytest.raises(OSError, match=NO_ANSWER):
        give(unknown_tag(pem))


def test_an_unknown_tag_with_a_known_signature_fails_at_once_with_ours(
    serve: Serve, give: Give, pem: Pem
) -> None:
    with serve(OURS):
        assert give(unknown_tag(pem)).hex() == FAILED_64


def size_that_lies(pem: Pem) -> tuple[bytes, bytes]:
    """A request to encrypt a payload that says it is longer than what is there; and what is."""
    there = new_payload(16)
    request = encrypt(pem, there + bytes(100))
    return request[: len(request) - 100], there


def test_a_payload_that_is_said_longer_than_it_is_makes_ecryptfsd_encrypt_its_memory(
    serve: Serve, give: Give, pem: Pem
) -> None:
    request, there = size_that_lies(pem)
    with serve(REAL):
        leaked = pem.key.decrypt(encrypted_key(give(request)))
    assert leaked.startswith(there)
    assert len(leaked) == len(there) + 100


def test_a_payload_that_is_said_longer_than_it_is_fails_with_ours(
    serve: Serve, give: Give, pem: Pem
) -> None:
    request, _ = size_that_lies(pem)
    with serve(OURS):
        assert give(request).hex() == FAILED_66


@pytest.mark.parametrize("bits", [2048, 4104], ids=["decrypted", "encrypted"])
def test_a_result_that_ecryptfs_has_no_room_for_kills_ecryptfsd(
    device: MountedDevice, daemons: DaemonFactory, give: Give, pems: PemFactory, bits: int
) -> None:
    pem = pems(bits, None)
    daemon = daemons(device)
    daemon.wait_reading()
    too_long = decrypt(pem, pem.key.encrypt(bytes(65))) if bits == 2048 else encrypt(pem, b"")
    with pem.token(), pytest.raises(OSError, match=NO_ANSWER):
        give(too_long)
    assert daemon.wait() == -signal.SIGABRT


def test_a_result_that_ecryptfs_has_no_room_for_fails_with_ours(
    serve: Serve, give: Give, pem: Pem, pems: PemFactory
) -> None:
    largest, too_large = bytes(67), pems(4104, None)
    with serve(OURS), too_large.token():
        assert give(encrypt(too_large, b"")).hex() == FAILED_66
        assert give(decrypt(pem, pem.key.encrypt(largest + b"\0"))).hex() == FAILED_64
        answer = give(decrypt(pem, pem.key.encrypt(largest)))
    assert answer == bytes((0x41, 0, len(largest))) + largest


@pytest.mark.parametrize(("daemon", "answer"), [(REAL, "4300"), (OURS, FAILED_66)])
def test_a_key_under_a_signature_that_is_not_its_own_is_used_by_ecryptfsd_alone(
    serve: Serve, give: Give, pem: Pem, daemon: str, answer: str
) -> None:
    blob = OpenSsl().build_blob(str(pem.path), None)
    signature = secrets.token_hex(8)
    with (
        in_user_keyring(signature, private_key_token(signature, "openssl", blob)),
        serve(daemon),
    ):
        assert give(build_request(Tag66(signature, new_payload(16))))[:2].hex() == answer
