"""How a command fails: a sentence on standard error and an exit code.

0    done
1    failed
2    usage
32   mount or unmount failed, as with mount(8)
"""

import click

NO_ANSWER = "the server of the device at {} does not answer: it may be stopped"


class Failed(click.ClickException):
    """The command could not do its work."""

    exit_code = 1


class MountFailed(click.ClickException):
    """Mounting or unmounting failed."""

    exit_code = 32
