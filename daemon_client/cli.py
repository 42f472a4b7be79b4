"""The command ecryptfs-keyd.

Standard output carries what programs read: the line ``ready: PATH``, or signatures. Everything else
goes to standard error.
"""

import logging
import signal
from collections.abc import AsyncIterator, Sequence

import click
import trio
from rich.console import Console
from rich.text import Text

from daemon_client.daemon import Daemon
from daemon_client.device import DaemonError
from daemon_client.keys import KeyFileError, RsaKey, load_key
from daemon_client.process import forbid_core_files, forbid_inspection

logger = logging.getLogger(__name__)

_STYLES = {logging.DEBUG: "dim", logging.WARNING: "yellow", logging.ERROR: "red"}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--device",
    metavar="PATH",
    type=click.Path(),
    default="/dev/ecryptfs",
    show_default=True,
    help="The device to serve.",
)
@click.option(
    "--key",
    "key_paths",
    metavar="PEM",
    type=click.Path(),
    required=True,
    multiple=True,
    help="A file with an RSA private key, not encrypted. May be given several times.",
)
@click.option(
    "--show-signatures",
    is_flag=True,
    help="Print the signature of each key, one a line, and end. Needs no device.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log every request.")
@click.version_option(package_name="ecryptfs-cuse", prog_name="ecryptfs-keyd")
def main(device: str, key_paths: Sequence[str], show_signatures: bool, verbose: bool) -> None:
    """Answer eCryptfs' requests for file keys with RSA keys, as the key daemon of this user.

    When it is registered, one line says so on standard output:

    \b
        ready: PATH

    It ends with Ctrl-C, SIGTERM, or when the device says QUIT. A user has one daemon at most.

    \b
    Example: make a key, learn the signature that files name it by, serve it
        openssl genrsa -out key.pem 2048
        ecryptfs-keyd --key key.pem --show-signatures
        ecryptfs-keyd --key key.pem

    \b
    Example: the same on a device in user space, and a request for it
        mkdir -p /tmp/ecryptfs
        ecryptfs-cuse mount /tmp/ecryptfs --background
        ecryptfs-keyd --device /tmp/ecryptfs/dev/ecryptfs --key key.pem &
        ecryptfs-cuse request encrypt --mount /tmp/ecryptfs --sig SIGNATURE

    \b
    Exit codes: 0 done, 1 failed, 2 usage.
    """
    _log(verbose)
    forbid_core_files()
    try:
        keys = [load_key(path) for path in key_paths]
        if show_signatures:
            for key in keys:
                click.echo(key.signature)
        else:
            for path, key in zip(key_paths, keys, strict=True):
                logger.info("key %s: RSA, %d bits, from %s", key.signature, key.bits, path)
            trio.run(_serve, device, keys)
    except (KeyFileError, DaemonError) as error:
        raise click.ClickException(str(error)) from None


async def _serve(path: str, keys: Sequence[RsaKey]) -> None:
    failure: DaemonError | None = None
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_at_signal, signals, nursery.cancel_scope)
            # Kept for later: a nursery would wrap it into a group.
            try:
                async with Daemon(path, keys) as daemon:
                    forbid_inspection()
                    click.echo(f"ready: {path}")
                    await daemon.run()
            except DaemonError as error:
                failure = error
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _cancel_at_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for number in signals:
        logger.info("stopping: %s", signal.Signals(number).name)
        scope.cancel()


class _LogHandler(logging.Handler):
    """Each record is one line on standard error, in colours on a terminal."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("ecryptfs-keyd: %(message)s"))
        self._console = Console(stderr=True, highlight=False)

    def emit(self, record: logging.LogRecord) -> None:
        style = _STYLES.get(record.levelno, "")
        try:
            # Not wrapped: programs read logs too.
            self._console.print(Text(self.format(record), style), soft_wrap=True)
        except OSError:
            self.handleError(record)


def _log(verbose: bool) -> None:
    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=level, handlers=[_LogHandler()])


if __name__ == "__main__":
    main()
