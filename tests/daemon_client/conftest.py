"""Keys are made once: making one takes longer than a test."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from daemon_client import daemon, threads
from daemon_client.modules.openssl import PemKey


@pytest.fixture(autouse=True)
def config_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this user's configuration is, during a test: nowhere yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "ecryptfs-keyd"


@pytest.fixture(scope="session")
def private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="session")
def key(private_key: rsa.RSAPrivateKey) -> PemKey:
    return PemKey(private_key, "made for tests")


@pytest.fixture(scope="session")
def other_key() -> PemKey:
    return PemKey(rsa.generate_private_key(65537, 1024), "made for tests")


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests in which a call does not return: they wait for all of it."""
    monkeypatch.setattr(threads, "GRACE", 0.1)
    monkeypatch.setattr(daemon, "GRACE", 0.1)
