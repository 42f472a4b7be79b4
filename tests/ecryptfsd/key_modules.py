"""ecryptfsd's key modules: where they are, and Debian's with our own ``openssl`` beside them.

Debian ships ecryptfsd without the key module openssl. Ours takes the same blobs and makes the same
ciphertexts; everything else of ecryptfsd is Debian's, unmodified.
"""

import shutil
import subprocess
from pathlib import Path

from tests.client import PATIENCE
from tests.ecryptfsd.programs import require

_SOURCE = Path(__file__).with_name("openssl_module.c")
_LIBRARIES = ("libecryptfs", "libcrypto")


def key_module_directory() -> Path:
    """The directory from which libecryptfs loads key modules."""
    return Path(_pkg_config("--variable=libdir", "libecryptfs")[0], "ecryptfs")


def copy_with_openssl(directory: Path) -> None:
    """Fill a directory with Debian's key modules and ours, which is compiled."""
    require("cc")
    # Copies, because the directory is going to cover the one that they are in.
    for module in key_module_directory().glob("*.so"):
        shutil.copy(module, directory)
    subprocess.run(
        [
            *("cc", "-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror"),
            *("-shared", "-fPIC", "-o", str(directory / "openssl.so"), str(_SOURCE)),
            *_pkg_config("--cflags", "--libs", *_LIBRARIES),
        ],
        check=True,
        timeout=PATIENCE,
    )


def _pkg_config(*arguments: str) -> list[str]:
    require("pkg-config")
    done = subprocess.run(
        ["pkg-config", *arguments], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, (
        "run make setup, or install the Debian packages libecryptfs-dev libssl-dev: " + done.stderr
    )
    return done.stdout.split()
