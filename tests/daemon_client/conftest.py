"""Keys are made once: making one takes longer than a test."""

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from daemon_client import daemon, threads
from daemon_client.keys import RsaKey


@pytest.fixture(scope="session")
def private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="session")
def key(private_key: rsa.RSAPrivateKey) -> RsaKey:
    return RsaKey(private_key)


@pytest.fixture(scope="session")
def other_key() -> RsaKey:
    return RsaKey(rsa.generate_private_key(65537, 1024))


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests in which a call does not return: they wait for all of it."""
    monkeypatch.setattr(threads, "GRACE", 0.1)
    monkeypatch.setattr(daemon, "GRACE", 0.1)
