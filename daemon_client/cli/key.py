"""ecryptfs-keyd key: make keys, and keep the list of those that the daemon is to serve."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import click

from daemon_client.cli.errors import ConfigFailed, Failed
from daemon_client.key import KeyOpenError
from daemon_client.secret import Secret
from daemon_client.sources.config import Config, ConfigError
from daemon_client.sources.directory import SIGNATURE, KeyDirectory
from daemon_client.sources.listing import Listed, listed_keys, remove_listed
from daemon_client.sources.reference import KeyReference, from_text
from daemon_client.sources.tokens import add_token

BITS_MIN, BITS_MAX = 2048, 4096  # the kernel takes encrypted keys of 512 octets at most

Target = Literal["directory", "keyring", "nowhere"]

_location = click.argument("location", metavar="[MODULE:]LOCATION")
_signature = click.argument("signature")
_passphrase_option = click.option(
    "--passphrase",
    metavar="SOURCE",
    help="Where its passphrase or PIN comes from: file:PATH, fd:NUMBER, askpass:PROGRAM, "
    "credential:NAME, or prompt. The directory keeps the source; a token the passphrase itself.",
)


@click.group()
def key() -> None:
    """Make keys, and keep the list of those that the daemon is to serve.

    \b
    A key's LOCATION is, by MODULE:
        openssl   the path of a PEM file with an RSA private key (the module may be left out)
        pkcs11    a URI (RFC 7512): pkcs11:token=NAME;object=NAME?module-path=LIBRARY
        tpm2      tpm2: and the path of a TSS2 key file, or a persistent handle such as 0x81010001

    The list is in a directory, one file for each key, and, with --to keyring, in the kernel's
    keyring, which forgets it when the user logs out or the machine ends. The daemon sees a change
    of the keyring at once, one of the directory after SIGHUP.
    """


@key.command()
@_location
@_passphrase_option
@click.option(
    "--to",
    type=click.Choice(["directory", "keyring"]),
    default="directory",
    show_default=True,
    help="Where to list it.",
)
@click.pass_obj
def add(load: Callable[[], Config], location: str, passphrase: str | None, to: Target) -> None:
    """List a key that exists, and print its signature.

    \b
    Examples:
        ecryptfs-keyd key add key.pem
        ecryptfs-keyd key add key.pem --passphrase prompt --to keyring
        ecryptfs-keyd key add 'pkcs11:token=mine;object=files?pin-source=file:/home/me/pin'
        ecryptfs-keyd key add tpm2:0x81010001
    """
    with _explained():
        reference = from_text(location, passphrase)
        with _secret_of(reference, to) as secret:
            _list(load(), reference, secret, to)


@key.command()
@_location
@_passphrase_option
@click.option(
    "--bits",
    type=click.IntRange(BITS_MIN, BITS_MAX),
    default=2048,
    show_default=True,
    help="The size of the RSA key.",
)
@click.option(
    "--to",
    type=click.Choice(["directory", "keyring", "nowhere"]),
    default="directory",
    show_default=True,
    help="Where to list it.",
)
@click.pass_obj
def generate(
    load: Callable[[], Config], location: str, passphrase: str | None, bits: int, to: Target
) -> None:
    """Make a new RSA key there, list it, and print its signature.

    Nothing that exists is overwritten. Keep a copy of a PEM file in a safe place: without the key
    the files are lost.

    \b
    Examples:
        ecryptfs-keyd key generate key.pem
        ecryptfs-keyd key generate key.pem --bits 4096 --passphrase prompt
        ecryptfs-keyd key generate 'pkcs11:token=mine;object=files' --passphrase prompt
        ecryptfs-keyd key generate tpm2:key.tss
    """
    with _explained():
        config, reference = load(), from_text(location, passphrase)
        with _secret_of(reference, to) as secret:
            if reference.is_typed:
                _require_repeated(reference, secret)
            reference.key_module().generate(reference.location, secret, bits)
            _list(config, reference, secret, to)


@key.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="For programs: a list of objects.")
@click.pass_obj
def list_(load: Callable[[], Config], as_json: bool) -> None:
    """Print every key that the daemon would serve: signature, place, module, location."""
    with _explained():
        rows = [_row(each, _signature_of(each)) for each in listed_keys(load())]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        click.echo(
            "  ".join(str(row[name]) for name in ("signature", "place", "module", "location"))
        )


@key.command()
@_signature
@click.pass_obj
def show(load: Callable[[], Config], signature: str) -> None:
    """Open the key of a signature, and print what is known about it."""
    is_found = False
    with _explained():
        for each in listed_keys(load()):
            if each.signature not in (signature, None):
                continue
            try:
                opened = each.open()
            except KeyOpenError as error:
                if each.signature is not None:
                    raise
                click.echo(f"{each.location}: {error}", err=True)
                continue
            if opened.signature == signature:
                is_found = True
                for name, value in (*_row(each, signature).items(), ("key", opened.describe())):
                    click.echo(f"{name + ':':12}{value or 'none'}")
            opened.close()
    if not is_found:
        raise Failed(f"there is no key {signature!r}: see 'ecryptfs-keyd key list'")


@key.command()
@_signature
@click.pass_obj
def remove(load: Callable[[], Config], signature: str) -> None:
    """Take a key off the list: out of the directory and the keyring. The key itself stays."""
    if not SIGNATURE.fullmatch(signature):
        raise click.BadParameter("a signature is 16 lower case hexadecimal digits")
    with _explained():
        config = load()
        places = remove_listed(config, signature)
        for place in places:
            click.echo(f"removed from the {place}: {signature}", err=True)
        if not places:
            raise Failed(
                f"{signature} is neither in {config.key_directory} nor in the keyring; what the "
                "configuration file names is removed there"
            )


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (ConfigError, KeyOpenError) as error:
        raise ConfigFailed(str(error)) from None


@contextmanager
def _secret_of(reference: KeyReference, to: Target) -> Iterator[Secret | None]:
    """The passphrase, asked for once, and wiped in the end."""
    if to == "directory" and reference.is_from_descriptor:
        raise KeyOpenError(
            "the daemon will not find the passphrase in that descriptor: name another source, or "
            "put the key into the keyring, with --to keyring"
        )
    secret = reference.secret()
    try:
        yield secret
    finally:
        if secret is not None:
            secret.wipe()


def _require_repeated(reference: KeyReference, secret: Secret | None) -> None:
    click.echo("The same once more:", err=True)
    again = reference.secret()
    assert secret is not None
    assert again is not None
    is_same = secret.octets == again.octets
    again.wipe()
    if not is_same:
        raise KeyOpenError("the passphrases differ: no key was made")


def _list(config: Config, reference: KeyReference, secret: Secret | None, to: Target) -> None:
    """Open the key, which shows that it can be; list it; print its signature."""
    opened = reference.open(secret)
    click.echo(f"{opened.signature}: {opened.describe()}", err=True)
    opened.close()
    if to == "directory":
        KeyDirectory(config.key_directory).add(opened.signature, reference)
    elif to == "keyring":
        add_token(reference, opened.signature, secret)
    click.echo(opened.signature)


def _signature_of(listed: Listed) -> str:
    """Where only the open key tells, it is opened."""
    if listed.signature is not None:
        return listed.signature
    try:
        opened = listed.open()
    except KeyOpenError as error:
        click.echo(f"{listed.location}: {error}", err=True)
        return "?" * 16
    opened.close()
    return opened.signature


def _row(listed: Listed, signature: str) -> dict[str, str | None]:
    return {
        "signature": signature,
        "place": listed.place,
        "module": listed.module,
        "location": listed.location,
        "passphrase": listed.passphrase,
    }
