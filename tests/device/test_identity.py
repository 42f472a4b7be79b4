"""Who the device takes its callers for, where /proc and the request do not say the same."""

import errno
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.client import Client
from tests.conftest import ClientFactory, let_everyone_in
from tests.device import io_uring
from tests.device.traffic import ask, message_of, open_device, read_packet, refused
from tests.mounted import MUST_TRUST, MountedDevice

USER = 54321
AS_USER = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
IN_PID_NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child")


SPACES = (("user", "user"), ("mount", "mnt"))


class ServerInNamespaces:
    """A device whose server is in other namespaces, and clients beside it."""

    def __init__(self, device: MountedDevice) -> None:
        self.device = device
        path = Path(f"/proc/{device.process.pid}/task/{device.process.pid}/children")
        self.pid = int(path.read_text())
        self._beside = ("nsenter", f"--target={self.pid}", "--all")

    def client(self, *prefix: str) -> Client:
        """A process beside the server."""
        return Client(0, (*self._beside, *prefix))

    def daemons(self, client: Client) -> list[tuple[int, int]]:
        """Uid and user namespace of those that are registered, as a client reads them."""
        path = str(self.device.mountpoint / "control" / "status")
        text = client.call("os.read", client.call("os.open", path, os.O_RDONLY), 65536)
        return [(each["euid"], each["user_namespace"]) for each in json.loads(text)["daemons"]]

    def stop(self) -> str:
        """End the server, which must end well; what it said of callers."""
        os.kill(self.pid, signal.SIGTERM)
        out, said = self.device.process.communicate(timeout=20)
        assert (self.device.process.returncode, out) == (0, b"")
        return said.decode().removeprefix(MUST_TRUST)


@contextmanager
def served_in_namespaces(where: Path, transport: str, *prefix: str) -> Iterator[ServerInNamespaces]:
    let_everyone_in(where.parent)
    arguments = ("--allow-other", "--mode", "0666", "--transport", transport)
    device = MountedDevice(where, *arguments, prefix=prefix)
    try:
        yield ServerInNamespaces(device)
    finally:
        device.clean_up()


@pytest.mark.parametrize(
    ("prefix", "is_own_proc"),
    [(IN_PID_NAMESPACE, False), ((*IN_PID_NAMESPACE, "--mount-proc"), True)],
    ids=["outer proc", "own proc"],
)
def test_in_a_pid_namespace_a_user_is_the_user_and_not_whom_an_outer_proc_has_by_that_number(
    tmp_path: Path, transport: str, prefix: tuple[str, ...], is_own_proc: bool
) -> None:
    with served_in_namespaces(tmp_path / "mount", transport, *prefix) as served:
        with served.client(*AS_USER) as user, served.client() as root:
            open_device(user, served.device)
            assert [uid for uid, _ in served.daemons(root)] == [USER]
            daemon = open_device(root, served.device)
            ask(root, served.device, b"root's")
            assert message_of(read_packet(root, daemon)).data == b"root's"
        said = served.stop()
    assert ("/proc is another pid namespace's" in said) != is_own_proc
    assert said.count("\n") == (not is_own_proc)


def test_a_caller_outside_the_pid_namespace_of_the_server_is_who_its_request_says(
    tmp_path: Path, transport: str, clients: ClientFactory
) -> None:
    with served_in_namespaces(tmp_path / "mount", transport, *IN_PID_NAMESPACE) as served:
        root = clients()
        open_device(clients(USER), served.device)
        open_device(root, served.device)
        assert [uid for uid, _ in served.daemons(root)] == [USER, 0]
        root.close()
        served.stop()


def test_users_whom_the_servers_user_namespace_does_not_know_are_refused(
    tmp_path: Path, transport: str, clients: ClientFactory
) -> None:
    prefix = ("unshare", "--fork", "--map-root-user", "--mount")
    capabilities = "+sys_admin,+sys_ptrace"
    with served_in_namespaces(tmp_path / "mount", transport, *prefix) as served:
        root = served.client()
        open_device(root, served.device)
        for uid in (USER, USER + 1, 65534):
            stranger = clients(
                0,
                *("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"),
                *(f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}"),
                # By their files, and so one after the other: newer ones refuse both at once.
                *("nsenter", *(f"--{kind}=/proc/{served.pid}/ns/{name}" for kind, name in SPACES)),
                "--preserve-credentials",
            )
            with refused(errno.EOVERFLOW):
                open_device(stranger, served.device)
        assert [uid for uid, _ in served.daemons(root)] == [0]
        root.close()
        served.stop()


@pytest.fixture
def uring_client() -> Iterator[Client]:
    """A process of root's whose io_uring worker was made as root."""
    with Client(functions=Path(io_uring.__file__)) as client:
        if not client.call("start_workers"):
            pytest.skip("the kernel forbids io_uring")
        yield client


def test_an_open_by_an_io_uring_worker_is_whoever_asked_for_it(
    device: MountedDevice, uring_client: Client, clients: ClientFactory
) -> None:
    uring_client.call("set_effective_uid", USER)
    uring_client.call("open_by_worker", device.path, os.O_RDWR)
    assert [daemon["euid"] for daemon in device.status()["daemons"]] == [USER]
    with refused(errno.EINVAL):
        open_device(clients(USER), device)
    open_device(clients(), device)


def test_an_io_uring_worker_made_as_a_user_opens_as_root_what_root_asks_for(
    device: MountedDevice,
) -> None:
    with Client(functions=Path(io_uring.__file__)) as client:
        client.call("set_effective_uid", USER)
        if not client.call("start_workers"):
            pytest.skip("the kernel forbids io_uring")
        client.call("set_effective_uid", 0)
        client.call("open_by_worker", device.path, os.O_RDWR)
        assert [daemon["euid"] for daemon in device.status()["daemons"]] == [0]


def test_where_proc_hides_other_users_each_is_who_its_request_says(
    tmp_path: Path, transport: str
) -> None:
    hide = 'mount -t proc -o hidepid=2 proc /proc && exec setpriv --bounding-set=-sys_ptrace "$@"'
    prefix = (*IN_PID_NAMESPACE, "--mount", "sh", "-c", hide, "sh")
    with served_in_namespaces(tmp_path / "mount", transport, *prefix) as served:
        with served.client(*AS_USER) as user, served.client() as root:
            open_device(user, served.device)
            open_device(root, served.device)
            assert [uid for uid, _ in served.daemons(root)] == [USER, 0]
        assert served.stop() == ""
