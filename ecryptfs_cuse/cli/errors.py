"""How a command fails: a sentence on standard error and an exit code.

0    done
1    failed
2    usage
32   mount or unmount failed, as with mount(8)
"""

import errno

import click


class Failed(click.ClickException):
    """The command could not do its work."""

    exit_code = 1


class MountFailed(click.ClickException):
    """Mounting or unmounting failed."""

    exit_code = 32


def unreachable(mountpoint: str, error: OSError) -> Failed:
    """Why a file of the device at ``mountpoint`` cannot be opened, and what to do about it."""
    match error:
        case TimeoutError():
            why = f"the server of the device at {mountpoint} does not answer: it may be stopped"
        case OSError(errno=errno.EACCES | errno.EPERM):
            why = (
                f"cannot look into {mountpoint}: permission denied: be the user who mounted the "
                "device, or have it mounted with --allow-other"
            )
        case OSError(errno=errno.ENOTCONN | errno.ECONNABORTED):
            why = (
                f"the server of the device at {mountpoint} has died: mount it again, or run: "
                f"ecryptfs-cuse umount {mountpoint}"
            )
        case OSError(errno=errno.ENOENT | errno.ENOTDIR | errno.ENODEV):
            why = f"no device is mounted at {mountpoint}: run: ecryptfs-cuse mount {mountpoint}"
        case OSError(errno=errno.EMFILE):
            why = f"you have too many files open on the device at {mountpoint}: close some"
        case _:
            why = f"cannot look into {mountpoint}: {error.strerror}"
    return Failed(why)
