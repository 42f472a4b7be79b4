"""How the command fails: a sentence on standard error and an exit code.

0    done
1    failed
2    usage
69   the device cannot be opened, or has gone (EX_UNAVAILABLE of sysexits.h)
78   the configuration or a key is wrong (EX_CONFIG): to start again would not help
"""

import click


class Failed(click.ClickException):
    """The command could not do its work."""

    exit_code = 1


class DeviceFailed(click.ClickException):
    """There is no device to serve."""

    exit_code = 69


class ConfigFailed(click.ClickException):
    """The configuration or a key is wrong."""

    exit_code = 78
