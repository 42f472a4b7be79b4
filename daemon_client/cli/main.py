"""The command ecryptfs-keyd: serve, check, or, with a subcommand, keep keys.

Standard output carries what programs read: the line ``ready: PATH``, signatures, lists. Everything
else goes to standard error.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import click
import trio

from daemon_client.cli.check import check_keys
from daemon_client.cli.errors import ConfigFailed, DeviceFailed
from daemon_client.cli.key import key
from daemon_client.cli.log import log_to_standard_error
from daemon_client.device import DaemonError
from daemon_client.key import KeyOpenError
from daemon_client.process import forbid_core_files, lock_memory
from daemon_client.service import Service
from daemon_client.sources.config import DEFAULT_DEVICE, Config, ConfigError, load_config
from daemon_client.sources.keys import Keys
from daemon_client.sources.reference import from_text

logger = logging.getLogger(__name__)


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "config_path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The configuration, in TOML.  [default: ~/.config/ecryptfs-keyd/config.toml, if there is "
    "one]",
)
@click.option(
    "--device",
    metavar="PATH",
    type=click.Path(),
    help=f"The device to serve.  [default: the configuration's, or {DEFAULT_DEVICE}]",
)
@click.option(
    "--key",
    "key_texts",
    metavar="[MODULE:]LOCATION",
    multiple=True,
    help="A key to serve besides the configuration's: a PEM file's path, a pkcs11: URI, tpm2: and "
    "a key file or handle. May be given several times.",
)
@click.option(
    "--passphrase",
    metavar="SOURCE",
    help="Where the passphrase or PIN of the keys given with --key comes from: file:PATH, "
    "fd:NUMBER, askpass:PROGRAM, credential:NAME, or prompt.",
)
@click.option(
    "--keyring/--no-keyring",
    default=None,
    help="Whether to look for keys in the kernel's keyring, too.  [default: the configuration's, "
    "or --keyring]",
)
@click.option(
    "--wait/--no-wait",
    default=None,
    help="Whether to wait for a device that is not there, or goes away.  [default: the "
    "configuration's, or --no-wait]",
)
@click.option(
    "--check", is_flag=True, help="Try the configuration and every key, say what is wrong, and end."
)
@click.option(
    "--show-signatures",
    is_flag=True,
    help="Print the signature of each key that is named, one a line, and end. Needs no device.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log every request.")
@click.version_option(package_name="ecryptfs-cuse", prog_name="ecryptfs-keyd")
@click.pass_context
def main(
    context: click.Context,
    config_path: Path | None,
    device: str | None,
    key_texts: Sequence[str],
    passphrase: str | None,
    keyring: bool | None,
    wait: bool | None,
    check: bool,
    show_signatures: bool,
    verbose: bool,
) -> None:
    """Answer eCryptfs' requests for file keys, as the key daemon of this user.

    When it is registered, one line says so on standard output:

    \b
        ready: PATH

    It ends with Ctrl-C, SIGTERM, or when the device says QUIT; SIGHUP has it read its configuration
    and keys anew. A user has one daemon at most.

    Its keys are those given with --key, those of the configuration, those that "ecryptfs-keyd key"
    keeps in its directory, and those whose tokens are in the kernel's keyring, where
    ecryptfs-manager and mount.ecryptfs put them.

    \b
    Example: make a key, learn the signature that files name it by, serve it
        ecryptfs-keyd key generate key.pem
        ecryptfs-keyd

    \b
    Example: the same on a device in user space, and a request for it
        mkdir -p /tmp/ecryptfs
        ecryptfs-cuse mount /tmp/ecryptfs --background
        ecryptfs-keyd --device /tmp/ecryptfs/dev/ecryptfs &
        ecryptfs-cuse request encrypt --mount /tmp/ecryptfs --sig SIGNATURE

    \b
    Example: a key in a PKCS#11 token
        ecryptfs-keyd --key 'pkcs11:token=mine;object=files' --passphrase prompt

    \b
    Exit codes: 0 done, 1 failed, 2 usage, 69 no device, 78 configuration or key wrong.
    """
    log_to_standard_error(verbose)
    forbid_core_files()

    def load() -> Config:
        config = load_config(config_path)
        try:
            given = tuple(from_text(text, passphrase) for text in key_texts)
        except KeyOpenError as error:
            raise ConfigError(f"--key: {error}") from None
        return replace(
            config,
            device=device or config.device,
            keyring=config.keyring if keyring is None else keyring,
            wait=config.wait if wait is None else wait,
            keys=given + config.keys,
        )

    if context.invoked_subcommand is not None:
        context.obj = load
        return
    if passphrase is not None and not key_texts:
        raise click.UsageError("--passphrase is for keys given with --key")
    try:
        if check:
            check_keys(load())
        elif show_signatures:
            for each in Keys.load(load()):
                click.echo(each.signature)
        else:
            _serve(load)
    except (ConfigError, KeyOpenError) as error:
        raise ConfigFailed(str(error)) from None


def _serve(load: Callable[[], Config]) -> None:
    service = Service(load)
    if not lock_memory():
        logger.info("keys may be swapped to disk: there is a limit on locked memory, see ulimit -l")
    try:
        trio.run(service.run)
    except DaemonError as error:
        raise DeviceFailed(str(error)) from None


main.add_command(key)

if __name__ == "__main__":
    main()
