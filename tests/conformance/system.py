"""What a case runs against: a device, users' processes, and requests raised as a user.

Two adapters make it so: emulator.py and kernel.py.
"""

import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.client import PATIENCE, Client, Pending
from tests.conformance.daemon import Daemon, Value

__all__ = [
    "OTHER_USER",
    "ROOT",
    "USER",
    "Asked",
    "Client",
    "ClientProcess",
    "Daemon",
    "Requester",
    "System",
    "Value",
]

ROOT, USER, OTHER_USER = 0, 1000, 1001

AT_ONCE = "at once"
AFTER_THE_TIME_OUT = "after the time-out"

_FUNCTIONS = Path(__file__).with_name("remote.py")


class ClientProcess(Client):
    """A client that can be made as it was. SIGUSR1 interrupts its system calls."""

    def __init__(self, uid: int, prefix: tuple[str, ...]) -> None:
        super().__init__(uid, prefix, _FUNCTIONS)
        self.started: list[Pending] = []
        self._is_stuck = self._is_used = False
        self._own: list[int] = self.call("open_descriptors")
        self.call("handle_signal", signal.SIGUSR1, False)

    def start(self, name: str, *arguments: Any) -> Pending:
        self._is_used = True
        pending = super().start(name, *arguments)
        self.started.append(pending)
        return pending

    def call(self, name: str, *arguments: Any) -> Any:
        self._is_used = True
        try:
            return super().call(name, *arguments)
        except TimeoutError:
            self._is_stuck = True
            raise

    def tidy(self, seconds: float) -> bool:
        """Close what was opened; whether that did it, and the process is alive.

        Calls that block are interrupted, and have ``seconds`` to return.
        """
        if self._is_stuck or not self._is_used:
            return not self._is_stuck
        try:
            deadline = time.monotonic() + seconds
            for pending in self.started:
                if not _is_over(pending):
                    self.call("signal_thread", pending.thread, signal.SIGUSR1)
                while not _is_over(pending):
                    if time.monotonic() > deadline:
                        return False
                    time.sleep(0.005)
            self.started.clear()
            self.call("close_all_but", self._own)
            self._is_used = False
        except (EOFError, BrokenPipeError):
            return False
        return True


def _is_over(pending: Pending) -> bool:
    try:
        return pending.is_done
    except EOFError:
        raise
    except Exception:  # whatever the call has raised
        return True


class Asked:
    """A file operation that asks the daemon, under way in a process of its user's."""

    def __init__(
        self,
        client: Client,
        pending: Pending,
        verdict: Callable[[Any], tuple[str, float, Any]],
        timeout: float,
        sleeps_in: int | None,
    ) -> None:
        self._client = client
        self._sleeps_in = sleeps_in
        self._pending = pending
        self._verdict = verdict
        self._timeout = timeout

    @property
    def outcome(self) -> str:
        """Wait for it: "OK" or the name of the errno that open(2) fails with."""
        return self._over()[0]

    @property
    def when(self) -> str:
        """How long it took: "at once" or "after the time-out"."""
        seconds = self._over()[1]
        if seconds < (0.5 * self._timeout if self._timeout > 0 else 0.5):
            return AT_ONCE
        return AFTER_THE_TIME_OUT if seconds > 0.9 * self._timeout else f"after {seconds:.1f} s"

    @property
    def file(self) -> Any:
        """What was created, for ``Requester.open``."""
        outcome, _, file = self._over()
        assert outcome == "OK", outcome
        return file

    @property
    def is_over(self) -> bool:
        """Whether it has returned, or its process is gone."""
        try:
            return self._pending.is_done
        except EOFError:
            return True

    def send_signal(self, number: int) -> None:
        """Send a signal to the thread that waits."""
        self._client.call("signal_thread", self._pending.thread, number)

    def wait_sent(self) -> None:
        """Wait until it sleeps for its answer."""
        path = Path(f"/proc/{self._client.pid}/task/{self._pending.thread}/syscall")
        sleeps = False
        while not sleeps:
            self._pending.wait_blocked()
            sleeps = self._sleeps_in is None or path.read_text().startswith(f"{self._sleeps_in} ")

    def _over(self) -> tuple[str, float, Any]:
        return self._verdict(self._pending.result(self._timeout + PATIENCE))


class Requester:
    """A user whose file operations ask that user's daemon."""

    def __init__(self, system: "System", client: Client) -> None:
        self._system = system
        self.client = client

    def create(self) -> Asked:
        """Start creating a file: tag 66."""
        return self._system.create(self.client)

    def open(self, file: Any) -> Asked:
        """Start opening a file that was created, and is in no cache: tag 64."""
        return self._system.open(self.client, file)


class System(ABC):
    """The device and everything around it; one for many cases."""

    name: str
    """"kernel", "channel" or "pyfuse3"."""

    timeout: float
    """message_wait_timeout, in seconds."""

    request_sleeps_in: int | None = None
    """The number of the system call in which a requester waits, where it makes several."""

    interruption = 5.0
    """Seconds within which a signal ends a blocked call."""

    def __init__(self) -> None:
        self._shared: dict[tuple[Any, ...], ClientProcess] = {}
        self._own: list[ClientProcess] = []
        self._asked: list[Asked] = []

    @property
    @abstractmethod
    def device(self) -> str:
        """The path of the device, which every user may open."""

    @abstractmethod
    def create(self, client: Client) -> Asked:
        """What ``Requester.create`` does."""

    @abstractmethod
    def open(self, client: Client, file: Any) -> Asked:
        """What ``Requester.open`` does."""

    @abstractmethod
    def restart(self, **parameters: int) -> None:
        """Begin anew, as after modprobe; with parameters of the module, until the case ends."""

    @abstractmethod
    def identify_by(self, rule: str) -> None:
        """Choose what the emulator's option ``--identity`` does, until the case ends."""

    def requester(self, uid: int = ROOT) -> Requester:
        """The requester of a user."""
        return Requester(self, self.client(uid, process=0))

    def new_requester(self, uid: int = ROOT) -> Requester:
        """A requester for one case alone, which may signal and kill its client."""
        return Requester(self, self.new_client(uid))

    def client(self, uid: int = ROOT, *prefix: str, process: int = 1) -> Client:
        """A process of a user's, the same one for all cases; another number is another process.

        Descriptors are closed after the case. Use ``new_client`` to change anything else.
        """
        key = (uid, prefix, process)
        if key not in self._shared:
            self._shared[key] = ClientProcess(uid, prefix)
        return self._shared[key]

    def new_client(self, uid: int = ROOT, *prefix: str) -> Client:
        """A process for one case alone, which may kill it. Starting it takes time."""
        self._own.append(ClientProcess(uid, prefix))
        return self._own[-1]

    def daemon(self, uid: int = ROOT, flags: int = os.O_RDWR) -> Daemon:
        """Open the device as a user; for a ``with`` statement."""
        return Daemon(self.client(uid), self.device, flags)

    def opened(self, uid: int = ROOT, process: int = 1, flags: int = os.O_RDWR) -> str:
        """Try to open the device and close it again: "OK" or the errno's name."""
        outcome, _ = self.client(uid, process=process).call("open_file", self.device, flags)
        return str(outcome)

    def created_file(self, daemon: Daemon, uid: int = ROOT) -> Any:
        """A file of the user's, whose daemon this is, for ``Requester.open``."""
        asked = self.requester(uid).create()
        daemon.answer(daemon.question())
        return asked.file

    def settle(self) -> None:
        """Make an end of what a case has left: requests, then daemons, then processes."""
        # In the kernel a daemon that closes before its requester's time is over does harm.
        deadline = time.monotonic() + self.timeout + PATIENCE
        while any(not asked.is_over for asked in self._asked):
            assert time.monotonic() < deadline, "a request does not end"
            time.sleep(0.05)
        self._asked.clear()
        for key, process in list(self._shared.items()):
            if not process.tidy(self.interruption):
                self._end(self._shared.pop(key))
        while self._own:
            self._end(self._own.pop())

    def stop(self) -> None:
        """End everything."""
        self.settle()
        while self._shared:
            self._end(self._shared.popitem()[1])

    def _end(self, process: ClientProcess) -> None:
        process.close()

    def _ask(
        self,
        client: Client,
        call: str,
        *arguments: Any,
        verdict: Callable[[Any], tuple[str, float, Any]],
    ) -> Asked:
        pending = client.start(call, *arguments)
        self._asked.append(Asked(client, pending, verdict, self.timeout, self.request_sleeps_in))
        return self._asked[-1]
