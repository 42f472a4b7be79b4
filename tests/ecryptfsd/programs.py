"""The programs of other projects that these tests run: each comes with a Debian package."""

import shutil

PACKAGES = {
    "cc": "gcc",
    "ecryptfs-add-passphrase": "ecryptfs-utils",
    "ecryptfsd": "ecryptfs-utils",
    "ecryptfs-generate-tpm-key": "ecryptfs-utils",
    "keyctl": "keyutils",
    "nsenter": "util-linux",
    "pkcs11-tool": "opensc",
    "pkg-config": "pkg-config",
    "setpriv": "util-linux",
    "unshare": "util-linux",
    "systemctl": "systemd",
    "swtpm": "swtpm",
    "swtpm_setup": "swtpm-tools",
    "softhsm2-util": "softhsm2",
    "tcsd": "trousers",
    "tpm2_import": "tpm2-tools",
    "tpm_takeownership": "tpm-tools",
}


def require(*names: str) -> None:
    """Fail with the packages to install where a program is missing."""
    missing = sorted({PACKAGES[name] for name in names if shutil.which(name) is None})
    assert not missing, f"run make setup, or install the Debian packages {' '.join(missing)}"
