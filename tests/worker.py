"""The other process of a test: it does what client.py tells it, each call in a thread of its own.

Run as ``python worker.py SOCKET_FD [MODULE...]``; requests and answers are pickles on that socket.
A MODULE, a path without ".py", adds its functions to these.
"""

import ctypes
import fcntl
import mmap
import os
import pickle
import select
import signal
import socket
import struct
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


def read_vector(descriptor: int, sizes: list[int]) -> bytes:
    """readv(2) into buffers of these sizes; what was read, joined."""
    buffers = [bytearray(size) for size in sizes]
    count = os.readv(descriptor, buffers)
    return b"".join(buffers)[:count]


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


def select_ready(descriptor: int, seconds: float) -> str:
    """What select(2) finds the descriptor ready for: letters of "rwx"."""
    sets = select.select([descriptor], [descriptor], [descriptor], seconds)
    return "".join(letter for letter, found in zip("rwx", sets, strict=True) if found)


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


def set_filesystem_uid(uid: int) -> None:
    """Change what the kernel takes for our uid in file systems, and nothing else."""
    _libc.setfsuid(uid)


def stat_afresh(path: str) -> tuple[int, int, int]:
    """Mode, uid and gid, asked of the server and not of the kernel's cache."""
    buffer = ctypes.create_string_buffer(256)
    at_fdcwd, at_statx_force_sync, statx_basic_stats = -100, 0x2000, 0x7FF
    if _libc.statx(at_fdcwd, path.encode(), at_statx_force_sync, statx_basic_stats, buffer) != 0:
        raise OSError(ctypes.get_errno(), "statx failed")
    # struct statx: u32 mask, blksize; u64 attributes; u32 nlink, uid, gid; u16 mode
    uid, gid, mode = struct.unpack_from("=IIH", buffer, 20)
    return mode, uid, gid


def send_descriptor(path: str, descriptor: int) -> None:
    """Pass a descriptor to whoever listens on the Unix socket ``path``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(path)
        socket.send_fds(connection, [b"x"], [descriptor])
        connection.recv(1)


_listeners: dict[str, socket.socket] = {}


def listen(path: str) -> None:
    """Listen on the Unix socket ``path``, for everybody."""
    listener = _listeners[path] = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    os.chmod(path, 0o777)
    listener.listen()


def receive_descriptor(path: str) -> int:
    """Wait for one descriptor on the Unix socket ``path``."""
    with _listeners.pop(path) as listener:
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
    """Try to mmap(2) a descriptor, shared: Python's own looks at the file's size before."""
    _libc.mmap.restype = ctypes.c_void_p
    protection, flags = mmap.PROT_READ, mmap.MAP_SHARED
    address = _libc.mmap(
        None, ctypes.c_size_t(4096), protection, flags, descriptor, ctypes.c_long(0)
    )
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap failed")


def raise_request(path: str, data: bytes) -> bytes:
    """One request through control/request; its answer."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.write(descriptor, data)
        return os.read(descriptor, 10_000)
    finally:
        os.close(descriptor)


def reopen(path: str, times: int) -> int:
    """Open and close a path again and again; how often that failed."""
    failed = 0
    for _ in range(times):
        try:
            os.close(os.open(path, os.O_RDWR))
        except OSError:
            failed += 1
    return failed


_more_functions: dict[str, Any] = {}


def _resolve(name: str) -> Any:
    if name in _more_functions:
        return _more_functions[name]
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
    for module in sys.argv[2:]:
        sys.path.append(os.path.dirname(module))
        _more_functions.update(vars(__import__(os.path.basename(module))))
    _serve()
    os._exit(0)
