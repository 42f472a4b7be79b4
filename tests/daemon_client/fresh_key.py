"""Fixtures: a key for one test alone, its file, its signature, which the keyring forgets again."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, PrivateFormat

from daemon_client.modules.rsa import signature_of
from tests.daemon_client.test_keyring import removed_in_the_end
from tests.daemon_client.test_openssl import write_pem
from tests.daemon_client.test_secret import PASSPHRASE


@pytest.fixture
def private_key() -> rsa.RSAPrivateKey:
    """A new one for each test: no token of another test has its signature."""
    return rsa.generate_private_key(65537, 1024)


@pytest.fixture
def signature(private_key: rsa.RSAPrivateKey) -> Iterator[str]:
    signature = signature_of(private_key.public_key())
    with removed_in_the_end(signature):
        yield signature


@pytest.fixture
def pem(tmp_path: Path, private_key: rsa.RSAPrivateKey) -> Path:
    return write_pem(tmp_path / "key.pem", private_key)


@pytest.fixture
def locked(tmp_path: Path, private_key: rsa.RSAPrivateKey) -> Path:
    """A PEM file that is encrypted."""
    encryption = BestAvailableEncryption(PASSPHRASE.encode())
    return write_pem(tmp_path / "locked.pem", private_key, PrivateFormat.PKCS8, encryption)
