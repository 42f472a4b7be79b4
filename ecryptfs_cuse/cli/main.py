"""The command ecryptfs-cuse."""

import click

from ecryptfs_cuse import __version__
from ecryptfs_cuse.cli.mount import mount, umount
from ecryptfs_cuse.cli.program import Program
from ecryptfs_cuse.cli.request import request
from ecryptfs_cuse.cli.status import status


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ecryptfs-cuse")
def main() -> None:
    """Linux's /dev/ecryptfs in user space: a device for key daemons, and requests for them.

    \b
    Exit codes: 0 done, 1 failed, 2 usage, 32 mount or unmount failed.
    """


main.add_command(mount)
main.add_command(umount)
main.add_command(request)
main.add_command(status)

if __name__ == "__main__":
    main()
