"""A mount namespace for the test run: what tests mount is gone with it, however it ends.

It also opens the way to the checkout for the other users that the tests act as: a checkout may be
in a home directory that nobody else may enter. There a directory of our own covers that one, in our
namespace alone, with nothing but the checkout in it.
"""

import ctypes
import os
import subprocess
import tempfile
from pathlib import Path

_CLONE_NEWNS = 0x00020000  # linux/sched.h
_CHECKOUT = Path(__file__).resolve().parent.parent


def isolate() -> None:
    """Enter a mount namespace of our own. Call it before there are threads, as root."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "no mount namespace of our own")
    # Fails where / is not a mount, as in a chroot; then there is nothing to make private either.
    subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True, check=False)
    closed = [path for path in _CHECKOUT.parents if not path.stat().st_mode & 0o001]
    if closed:
        _cover(closed[-1])
    if not _CHECKOUT.stat().st_mode & 0o001:
        _CHECKOUT.chmod(_CHECKOUT.stat().st_mode | 0o055)


def _cover(directory: Path) -> None:
    held = tempfile.mkdtemp(prefix="checkout-")
    _mount("--bind", str(_CHECKOUT), held)
    _mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", str(directory))
    _CHECKOUT.mkdir(parents=True)
    _mount("--move", held, str(_CHECKOUT))
    os.rmdir(held)
    os.chdir(_CHECKOUT)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)
