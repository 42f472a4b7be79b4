"""Drive another process call by call: the client side of a test is never the test's own process."""

import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

from tests.closing import Closing

PATIENCE = 20.0
"""Seconds after which a test gives up on what should have happened at once."""


class Pending:
    """A call that runs in a thread of the client's."""

    def __init__(self, client: "Client", serial: int) -> None:
        self._client = client
        self._serial = serial
        self.thread: int = client._receive(serial, "thread", PATIENCE)

    def result(self, seconds: float = PATIENCE) -> Any:
        """What the call returned; raises what it raised, TimeoutError if it did neither."""
        return self._client._receive(self._serial, "value", seconds)

    @property
    def is_done(self) -> bool:
        """Whether the call has returned."""
        try:
            self.result(0)
        except TimeoutError:
            return False
        return True

    def wait_blocked(self) -> None:
        """Wait until the thread sleeps in its system call."""
        deadline = time.monotonic() + PATIENCE
        path = Path(f"/proc/{self._client.pid}/task/{self.thread}")
        while not self.is_done:
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            call = (path / "syscall").read_text().split()[0]
            if state in "SD" and call != "running" and int(call) not in _FUTEX:
                return
            assert time.monotonic() < deadline, f"the thread does not sleep: {state} {call}"
            os.sched_yield()
        raise AssertionError(f"the call has returned: {self.result(0)!r}")


_FUTEX = {-1, 202}  # a Python thread that waits for the interpreter's lock, not for the device


class Client(Closing):
    """A process of user ``uid``.

    Calls are named: "os.open", or a function of worker.py or of the module file ``functions``.
    """

    def __init__(
        self, uid: int = 0, prefix: tuple[str, ...] = (), functions: Path | None = None
    ) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            worker = str(Path(__file__).with_name("worker.py"))
            more = [] if functions is None else [str(functions.with_suffix(""))]
            self._process = subprocess.Popen(
                [*prefix, sys.executable, "-I", worker, str(theirs.fileno()), *more],
                pass_fds=[theirs.fileno()],
                user=uid if uid != os.geteuid() else None,
                group=uid if uid != os.geteuid() else None,
                extra_groups=[] if uid != os.geteuid() else None,
            )
        self.pid = self._process.pid
        self._connection = ours
        self._serial = count()
        self._answers: dict[tuple[int, str], Any] = {}

    def call(self, name: str, *arguments: Any) -> Any:
        """Do it and wait: what it returns, or what it raises."""
        serial = self._send(False, name, arguments)
        return self._receive(serial, "value", PATIENCE)

    def start(self, name: str, *arguments: Any) -> Pending:
        """Do it in a thread of its own."""
        return Pending(self, self._send(True, name, arguments))

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the process."""
        self._process.send_signal(number)

    def wait(self, seconds: float = PATIENCE) -> int:
        """Wait until the process is gone; its exit status, or minus the signal."""
        return self._process.wait(seconds)

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.kill()
        self._process.wait(PATIENCE)

    def _send(self, in_thread: bool, name: str, arguments: tuple[Any, ...]) -> int:
        serial = next(self._serial)
        self._connection.send(pickle.dumps((serial, in_thread, name, arguments)))
        return serial

    def _receive(self, serial: int, what: str, seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        while (serial, what) not in self._answers:
            if (serial, "error") in self._answers and what == "value":
                raise self._answers[serial, "error"]
            self._connection.settimeout(max(deadline - time.monotonic(), 0.000_001))
            octets = self._connection.recv(1 << 20)
            if not octets:
                raise EOFError("the client has died")
            answered, kind, value = pickle.loads(octets)
            self._answers[answered, kind] = value
        return self._answers[serial, what]
