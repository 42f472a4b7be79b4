"""Fixtures of the tests that run the real ecryptfsd."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import MountFactory
from tests.ecryptfsd.auth_token import in_user_keyring, private_key_token
from tests.ecryptfsd.daemon import RealDaemon
from tests.ecryptfsd.namespace import DeviceInside, PrivateNamespace
from tests.ecryptfsd.tpm import MODULE_ALIAS, SoftwareTpm
from tests.mounted import MountedDevice

DaemonFactory = Callable[..., RealDaemon]
InsideFactory = Callable[[str], DeviceInside]


@pytest.fixture
def namespace() -> Iterator[PrivateNamespace]:
    """A mount namespace without a device."""
    with PrivateNamespace() as private:
        yield private


@pytest.fixture
def key_modules() -> Path | None:
    """The directory of ecryptfsd's key modules, None for Debian's. Tests may override it."""
    return None


@pytest.fixture
def daemons(key_modules: Path | None) -> Iterator[DaemonFactory]:
    """Start ecryptfsd on a device as a user, with further environment; all are gone at the end."""
    with ExitStack() as started:
        namespaces: dict[MountedDevice, PrivateNamespace] = {}

        def factory(device: MountedDevice, uid: int = 0, **environment: str) -> RealDaemon:
            if isinstance(device, DeviceInside):
                namespace = device.namespace
            elif device in namespaces:
                namespace = namespaces[device]
            else:
                namespace = namespaces[device] = started.enter_context(PrivateNamespace())
                namespace.show(device)
                if key_modules is not None:
                    namespace.show_key_modules(key_modules)
            return started.enter_context(RealDaemon(namespace, device, uid, environment))

        yield factory


# A daemon that waits in read can be killed on the transport pyfuse3 only when its device is gone.
# That is why devices ask for ``daemons`` here: so they end first.


@pytest.fixture
def mount(daemons: DaemonFactory, mount: MountFactory) -> MountFactory:
    """Mount a device, as everywhere."""
    return mount


@pytest.fixture
def mount_inside(
    namespace: PrivateNamespace, daemons: DaemonFactory, tmp_path: Path, transport: str
) -> Iterator[InsideFactory]:
    """Mount a device from within a namespace, with --bind."""
    with ExitStack() as mounted:

        def factory(bind: str) -> DeviceInside:
            device = DeviceInside(namespace, tmp_path / "inside", bind, "--transport", transport)
            mounted.callback(device.clean_up)
            return device

        yield factory


@pytest.fixture(scope="session")
def tpm() -> Iterator[SoftwareTpm]:
    """One software TPM for all tests: it takes seconds to make."""
    # Not below pytest's own directory, which only root may enter.
    with (
        tempfile.TemporaryDirectory(prefix="ecryptfsd-tpm-") as directory,
        SoftwareTpm(Path(directory)) as made,
    ):
        yield made


@pytest.fixture
def tpm_signature(tpm: SoftwareTpm) -> Iterator[str]:
    """The signature under which this user's keyring has the TPM's key.

    ecryptfsd looks keys up by it and checks it no further: a part of the key's UUID will do.
    """
    signature = tpm.key.hex()[:16]
    with in_user_keyring(signature, private_key_token(signature, MODULE_ALIAS, tpm.key)):
        yield signature
