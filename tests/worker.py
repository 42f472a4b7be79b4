"""The other process of a test: it does what client.py tells it, each call in a thread of its own.

Run as ``python worker.py SOCKET_FD``; requests and answers are pickles on that socket.
"""

import ctypes
import fcntl
import mmap
import os
import pickle
import select
import signal
import socket
import sys
import threading
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)

received_signals: list[int] = []


def raw_read(descriptor: int, size: int) -> bytes:
    """read(2) just once: Python's own would go on after EINTR."""
    buffer = ctypes.create_string_buffer(max(size, 1))
    result = _libc.read(descriptor, buffer, ctypes.c_size_t(size))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return buffer.raw[:result]


def lseek(descriptor: int, offset: int, whence: int) -> int:
    """lseek(2) with any whence."""
    result: int = _libc.lseek(descriptor, ctypes.c_long(offset), whence)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def poll(descriptor: int, events: int, seconds: float) -> int:
    """The events that poll(2) reports, 0 after ``seconds``."""
    poller = select.poll()
    poller.register(descriptor, events)
    found = poller.poll(seconds * 1000)
    return found[0][1] if found else 0


def select_readable(descriptor: int, seconds: float) -> bool:
    """Whether select(2) finds the descriptor readable."""
    return bool(select.select([descriptor], [], [], seconds)[0])


_epolls: dict[int, select.epoll] = {}


def epoll_open(descriptor: int, events: int) -> int:
    """A new epoll instance that watches one descriptor; its number."""
    epoll = select.epoll()
    epoll.register(descriptor, events)
    _epolls[epoll.fileno()] = epoll
    return epoll.fileno()


def epoll_wait(number: int, seconds: float) -> int:
    """The events that epoll_wait(2) reports, 0 after ``seconds``."""
    found = _epolls[number].poll(seconds)
    return found[0][1] if found else 0


def epoll_modify(number: int, descriptor: int, events: int) -> None:
    """EPOLL_CTL_MOD."""
    _epolls[number].modify(descriptor, events)


def handle_signal(number: int, restart: bool) -> None:
    """Install a handler that does nothing but say that it ran."""
    signal.signal(number, lambda received, _frame: received_signals.append(received))
    signal.siginterrupt(number, not restart)


def signal_thread(thread: int, number: int) -> None:
    """Send a signal to one thread, by its id."""
    _libc.tgkill(os.getpid(), thread, number)


def set_effective_uid(uid: int) -> None:
    """Change the effective uid of the whole process."""
    os.setresuid(-1, uid, -1)


def send_descriptor(path: str, descriptor: int) -> None:
    """Pass a descriptor to whoever listens on the Unix socket ``path``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(path)
        socket.send_fds(connection, [b"x"], [descriptor])
        connection.recv(1)


def receive_descriptor(path: str) -> int:
    """Listen on the Unix socket ``path`` for one descriptor."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        os.chmod(path, 0o777)
        listener.listen()
        connection, _ = listener.accept()
        with connection:
            descriptors = socket.recv_fds(connection, 1, 1)[1]
            connection.send(b"x")
        return descriptors[0]


def fork_and_hold() -> int:
    """Fork a child that keeps every descriptor until it is killed; its pid."""
    child = os.fork()
    if child == 0:
        # The test's own socket must not be held open by the child.
        os.close(_connection.fileno())
        while True:
            signal.pause()
    return child


def reap(child: int) -> None:
    """Kill a child and wait until it is gone."""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def map_memory(descriptor: int) -> None:
    """Try to mmap(2) a descriptor."""
    mmap.mmap(descriptor, 4096).close()


def reopen(path: str, times: int) -> int:
    """Open and close a path again and again; how often that failed."""
    failed = 0
    for _ in range(times):
        try:
            os.close(os.open(path, os.O_RDWR))
        except OSError:
            failed += 1
    return failed


def _resolve(name: str) -> Any:
    found: Any = {"os": os, "fcntl": fcntl, "select": select, "signal": signal, "": None}
    module, _, attribute = name.rpartition(".")
    return getattr(found[module], attribute) if module else globals()[name]


_sending = threading.Lock()
_connection: socket.socket


def _answer(serial: int, what: str, value: Any) -> None:
    with _sending:
        _connection.send(pickle.dumps((serial, what, value)))


def _do(serial: int, name: str, arguments: tuple[Any, ...]) -> None:
    _answer(serial, "thread", threading.get_native_id())
    try:
        value = _resolve(name)(*arguments)
    except Exception as error:
        _answer(serial, "error", error)
    else:
        _answer(serial, "value", value)


def _serve() -> None:
    while octets := _connection.recv(1 << 20):
        serial, in_thread, name, arguments = pickle.loads(octets)
        if in_thread:
            threading.Thread(target=_do, args=(serial, name, arguments), daemon=True).start()
        else:
            _do(serial, name, arguments)


if __name__ == "__main__":
    _connection = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _serve()
    os._exit(0)
