"""System calls by name, with any arguments: C libraries check some, and lack others.

Numbers are those of asm/unistd_64.h and of asm-generic/unistd.h, which aarch64 has.
"""

import ctypes
import os
from dataclasses import dataclass

_libc = ctypes.CDLL(None, use_errno=True)

# The name, the numbers on x86_64 and aarch64, and what each argument is: see syscalls.py.
_TABLE = """
acct               163  89  path
chdir               80  49  path
chroot             161  51  path
close                3  57  fd
copy_file_range    326 285  fd offset_at fd offset_at size flags
dup                 32  23  fd
dup3               292  24  fd high_fd flags
epoll_create1      291  20  flags
epoll_ctl          233  21  fd small fd memory
epoll_pwait        281  22  fd memory small moment null null
faccessat2         439 439  fd path flags flags
fadvise64          221 223  fd offset size small
fallocate          285  47  fd flags offset offset
fanotify_init      300 262  flags flags
fanotify_mark      301 263  fd flags flags fd path
fchdir              81  50  fd
fchmod              91  52  fd flags
fchmodat           268  53  fd path flags
fchown              93  55  fd small small
fchownat           260  54  fd path small small flags
fcntl               72  25  fd fcntl lock
fdatasync           75  83  fd
fgetxattr          193  10  fd xattr memory size
flistxattr         196  13  fd memory size
flock               73  32  fd small
fremovexattr       199  16  fd xattr
fsconfig           431 431  fd small xattr path small
fsetxattr          190   7  fd xattr memory size flags
fsmount            432 432  fd flags flags
fsopen             430 430  xattr flags
fspick             433 433  fd path flags
fstat                5  80  fd memory
fstatfs            138  44  fd memory
fsync               74  82  fd
ftruncate           77  46  fd offset
getdents64         217  61  fd memory size
getxattr           191   8  path xattr memory size
inotify_add_watch  254  27  fd path flags
inotify_init1      294  26  flags
io_cancel          210   3  small memory memory
io_destroy         207   1  small
io_getevents       208   4  small small small memory moment_at
io_setup           206   0  small memory
io_submit          209   2  number small memory
io_uring_enter     426 426  fd small small flags null null
io_uring_register  427 427  fd small memory small
io_uring_setup     425 425  small memory
ioctl               16  29  fd ioctl memory
kcmp               312 272  pid pid small fd fd
linkat             265  37  fd path fd path flags
listxattr          194  11  path memory size
lseek                8  62  fd offset small
madvise             28 233  memory extent advice
mincore             27 232  memory extent memory
mkdirat            258  34  fd path flags
mknodat            259  33  fd path flags number
mlock              149 228  memory extent
mmap                 9 222  null extent small mapping fd page
mount              165  40  path path xattr flags memory
mount_setattr      442 442  fd path flags memory size
move_mount         429 429  fd path fd path flags
mprotect            10 226  memory extent small
msync               26 227  memory extent small
munmap              11 215  memory extent
name_to_handle_at  303 264  fd path memory memory flags
newfstatat         262  79  fd path memory flags
open_by_handle_at  304 265  fd memory flags
open_tree          428 428  fd path flags
openat             257  56  fd path flags flags
openat2            437 437  fd path memory size
pidfd_getfd        438 438  fd fd null
pidfd_open         434 434  pid flags
pivot_root         155  41  path path
ppoll              271  73  polled small moment_at null null
pread64             17  67  fd memory size offset
preadv             295  69  fd vector small offset null
preadv2            327 286  fd vector small offset null flags
pwrite64            18  68  fd memory size offset
pwritev            296  70  fd vector small offset null
pwritev2           328 287  fd vector small offset null flags
quotactl_fd        443 443  fd flags small memory
read                 0  63  fd memory size
readahead          187 213  fd offset size
readlinkat         267  78  fd path memory size
readv               19  65  fd vector small
remap_file_pages   216 234  memory extent null page flags
removexattr        197  14  path xattr
renameat2          316 276  fd path fd path flags
sendfile            40  71  fd fd offset_at size
setns              308 268  fd flags
setxattr           188   5  path xattr memory size flags
splice             275  76  fd offset_at fd offset_at size flags
statfs             137  43  path memory
statx              332 291  fd path flags flags memory
symlinkat          266  36  path fd path
sync_file_range    277  84  fd offset size flags
syncfs             306 267  fd
tee                276  77  fd fd size flags
truncate            76  45  path offset
umount2            166  39  path flags
unlinkat           263  35  fd path flags
unshare            272  97  namespaces
utimensat          280  88  fd path moment_at flags
vmsplice           278  75  fd vector small flags
write                1  64  fd memory size
writev              20  66  fd vector small
"""


@dataclass(frozen=True, slots=True)
class Call:
    """A system call. arguments: what each is, by its name in syscalls.py."""

    name: str
    number: int
    arguments: tuple[str, ...]


def _calls() -> dict[str, Call]:
    column = ("x86_64", "aarch64").index(os.uname().machine)
    lines = (line.split() for line in _TABLE.split("\n") if line)
    return {
        name: Call(name, int(numbers[column]), tuple(arguments))
        for name, *numbers_and_arguments in lines
        for numbers, arguments in [(numbers_and_arguments[:2], numbers_and_arguments[2:])]
    }


CALLS = _calls()


def call(name: str, *arguments: int) -> int:
    """Make a system call: its result, or minus its errno. It is made once, EINTR or not."""
    result: int = _syscall(CALLS[name].number, *map(ctypes.c_long, arguments))
    return -ctypes.get_errno() if result == -1 else result


_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
