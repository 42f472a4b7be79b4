"""Memory that never comes: a page of a file whose server does not answer.

Anybody can have it, in a user namespace of his own: a FUSE file system with one file, whose READs
stay without an answer until the server is killed. Whoever touches a mapping of it waits.

Source: linux/fuse.h; fuse(4); user_namespaces(7).
"""

import ctypes
import mmap
import os
from struct import Struct

from soak.calls import call
from soak.memory import mapped

SIZE = 1 << 20

_CLONE_NEWNS = 0x00020000  # linux/sched.h
_CLONE_NEWUSER = 0x10000000
_OPCODES = {"LOOKUP": 1, "FORGET": 2, "GETATTR": 3, "OPEN": 14, "READ": 15, "INIT": 26}
_IN_HEADER = Struct("=IIQQ")  # len, opcode, unique, nodeid
_OUT_HEADER = Struct("=IiQ")  # len, error, unique
_INIT = Struct("=IIII HHI II 32x")  # fuse_init_out: major, minor, ...
_ATTRIBUTES = Struct("=6Q 10I")  # fuse_attr: ino, size, ..., mode, nlink, ...
_ENTRY = Struct("=QQQQII")  # fuse_entry_out: nodeid, generation, entry_valid, attr_valid, ...
_FOR_EVER = 1 << 20  # seconds
_ENOSYS = 38
_FILE = 2  # its nodeid
_NEVER = (_OPCODES["READ"], _OPCODES["FORGET"])


def alone() -> None:
    """Enter a user namespace and a mount namespace of our own, as its root."""
    uid, gid = os.geteuid(), os.getegid()
    if error := call("unshare", _CLONE_NEWUSER | _CLONE_NEWNS):
        raise OSError(-error, "no user namespace")
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def hanging_memory(where: str) -> int:
    """The address of SIZE octets that never come. Mounts over ``where``, in our namespace."""
    descriptor = hanging_file(where)
    return mapped(SIZE, mmap.PROT_READ | mmap.PROT_WRITE, descriptor)


def hanging_file(where: str) -> int:
    """The descriptor of a file that is never read; a child of ours serves it."""
    alone()
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    texts = [ctypes.create_string_buffer(text.encode()) for text in (where, "fuse", options)]
    target, kind, data = (ctypes.addressof(text) for text in texts)
    if error := call("mount", kind, target, kind, 0, data):
        raise OSError(-error, f"cannot mount on {where}")
    if os.fork() == 0:
        try:
            _serve(device)
        finally:
            os._exit(0)
    os.close(device)  # with its last descriptor, which the child has, the connection ends
    return os.open(os.path.join(where, "file"), os.O_RDWR)


def _serve(device: int) -> None:
    while True:
        request = os.read(device, 1 << 20)
        _, opcode, unique, node = _IN_HEADER.unpack_from(request)
        if opcode in _NEVER:
            continue
        body = _reply(opcode, node)
        error = 0 if body else -_ENOSYS
        os.write(device, _OUT_HEADER.pack(_OUT_HEADER.size + len(body), error, unique) + body)


def _reply(opcode: int, node: int) -> bytes:
    if opcode == _OPCODES["INIT"]:
        return _INIT.pack(7, 31, 0, 0, 0, 0, 4096, 0, 0)
    if opcode == _OPCODES["LOOKUP"]:
        return _ENTRY.pack(_FILE, 0, _FOR_EVER, _FOR_EVER, 0, 0) + _attributes(_FILE)
    if opcode == _OPCODES["GETATTR"]:
        return Struct("=QQ").pack(_FOR_EVER, 0) + _attributes(node)
    if opcode == _OPCODES["OPEN"]:
        return bytes(16)  # fuse_open_out: no file handle, no flags
    return b""


def _attributes(node: int) -> bytes:
    mode = 0o100666 if node == _FILE else 0o40777
    return _ATTRIBUTES.pack(node, SIZE, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
