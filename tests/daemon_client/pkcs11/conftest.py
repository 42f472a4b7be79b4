"""Fixtures: tokens with a key, and keys that are closed in the end."""

import contextlib
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from pkcs11.types import Session

from daemon_client.modules.pkcs11 import Pkcs11, Pkcs11Key
from daemon_client.secret import Secret
from tests.daemon_client.pkcs11.softhsm import LIBRARY, PIN, SoftHsm, in_this_process, location
from tests.daemon_client.pkcs11.tokens import (
    OpenKey,
    token,
    write_pem,
)


@pytest.fixture(scope="session")
def hsm() -> SoftHsm:
    return in_this_process()


@pytest.fixture(scope="session")
def stored(
    hsm: SoftHsm, private_key: rsa.RSAPrivateKey, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The label of a key on the token "first"; its CKA_ID is 01."""
    pem = write_pem(tmp_path_factory.mktemp("stored") / "key.pem", private_key)
    hsm.import_key(pem, "first", "stored", "01")
    return "stored"


@pytest.fixture
def label() -> str:
    """A label that no other test uses."""
    return f"key {uuid4()}"


@pytest.fixture
def open_key(hsm: SoftHsm) -> Iterator[OpenKey]:
    """Open keys; at the end they are closed."""
    with contextlib.ExitStack() as opened:

        def open_one(pin: str | None = PIN, **attributes: str) -> Pkcs11Key:
            where = location(**{"token": "first", **attributes})
            key = Pkcs11().open(where, Secret(pin.encode()) if pin is not None else None)
            opened.callback(key.close)
            return key

        yield open_one


@pytest.fixture
def officer(hsm: SoftHsm) -> Iterator[Session]:
    """A session that may write to the token "first"; the test opens its keys after that."""
    with token("first").open(rw=True, user_pin=PIN) as session:
        yield session


@pytest.fixture
def spied(hsm: SoftHsm, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What has been called since, through the library SPY."""
    path = hsm.directory / "spied"
    monkeypatch.setenv("PKCS11SPY", LIBRARY)
    monkeypatch.setenv("PKCS11SPY_OUTPUT", str(path))
    start = path.stat().st_size if path.exists() else 0
    return lambda: [
        line.split(": ")[1].strip()
        for line in path.read_text()[start:].splitlines()
        if ": C_" in line
    ]
