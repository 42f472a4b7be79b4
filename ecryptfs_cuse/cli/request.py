"""ecryptfs-cuse request: be the kernel that asks a key daemon."""

import errno
import os
import string
from typing import BinaryIO

import click

from ecryptfs_cuse.cli.errors import NO_ANSWER, Failed
from ecryptfs_cuse.core.errors import DeviceError
from ecryptfs_cuse.core.keystore import decrypted_key, encrypted_key
from ecryptfs_cuse.fuse.patience import open_in_time
from ecryptfs_cuse.wire.ciphers import CIPHER_CODES, cipher_code
from ecryptfs_cuse.wire.errors import BuildError
from ecryptfs_cuse.wire.packet import MESSAGE_DATA_MAX
from ecryptfs_cuse.wire.tags import FileKey, Tag64, Tag66, build_file_key, build_request

_ERRORS = {
    errno.ENOTCONN: "you have no key daemon on this device: start one as this user",
    errno.ENOMEM: "too many requests are waiting: every message context is in use",
    errno.ENOMSG: "the key daemon did not answer in time",
    errno.EMSGSIZE: f"a request has {MESSAGE_DATA_MAX} octets at most",
    errno.ESHUTDOWN: "the device was unmounted before the answer came",
    errno.ECONNABORTED: "the device's server died before the answer came",
}

_NO_DEVICE = (errno.ENOENT, errno.ENOTDIR, errno.ENOTCONN, errno.ENODEV)


def _hex(digits: str) -> bytes:
    try:
        return bytes.fromhex(digits)
    except ValueError:
        # The digits may be a key's: do not repeat them.
        raise click.BadParameter("give an even number of hexadecimal digits") from None


_mount_option = click.option(
    "--mount",
    "mountpoint",
    required=True,
    metavar="MOUNTPOINT",
    help="Where the device is mounted.",
)
_sig_option = click.option(
    "--sig",
    required=True,
    metavar="SIG",
    help="The key's signature, 16 hexadecimal digits.",
)


@click.group()
def request() -> None:
    """Ask the key daemon of the calling user, as eCryptfs asks it for a file.

    Prints the answer's key, or ciphertext, in hexadecimal. When there is none, a sentence says why
    and the exit code is 1.
    """


@request.command()
@_mount_option
@_sig_option
@click.option("--cipher", type=click.Choice(list(CIPHER_CODES)), default="aes", show_default=True)
@click.option("--key", type=_hex, metavar="HEX", help="The file key, for tests: others see it.")
@click.option("--key-bytes", type=click.IntRange(1, 64), help="The size of a random file key.")
def encrypt(
    mountpoint: str, sig: str, cipher: str, key: bytes | None, key_bytes: int | None
) -> None:
    """Have a file key encrypted: tag 66, answered by tag 67.

    Without --key a random one is made and shown on standard error.

    \b
    Example: there and back again
        ecryptfs-cuse request encrypt --mount /tmp/ecryptfs --sig SIG > wrapped
        ecryptfs-cuse request decrypt --mount /tmp/ecryptfs --sig SIG --encrypted wrapped
    """
    if key is not None and key_bytes is not None:
        raise click.UsageError("give --key or --key-bytes, not both")
    if key is None:
        key = os.urandom(16 if key_bytes is None else key_bytes)
        click.echo(f"file key: {key.hex()}", err=True)
    try:
        payload = build_file_key(FileKey(cipher_code(cipher, len(key)), key))
        packet = build_request(Tag66(sig, payload))
    except BuildError as error:
        raise click.UsageError(str(error)) from None
    answer = _exchange(mountpoint, packet)
    try:
        click.echo(encrypted_key(answer).hex())
    except DeviceError as error:
        raise Failed(f"the file key was not encrypted: {error.strerror}") from None


@request.command()
@_mount_option
@_sig_option
@click.option(
    "--encrypted",
    required=True,
    metavar="FILE|-",
    type=click.File("rb"),
    help="The encrypted key, as octets or in hexadecimal; - for standard input.",
)
def decrypt(mountpoint: str, sig: str, encrypted: BinaryIO) -> None:
    """Have a file key decrypted: tag 64, answered by tag 65."""
    try:
        packet = build_request(Tag64(sig, _octets(encrypted.read())))
    except BuildError as error:
        raise click.UsageError(str(error)) from None
    answer = _exchange(mountpoint, packet)
    try:
        click.echo(decrypted_key(answer).key.hex())
    except DeviceError as error:
        raise Failed(f"the file key was not decrypted: {error.strerror}") from None


@request.command()
@_mount_option
@click.argument("packet", type=_hex, metavar="HEX")
def raw(mountpoint: str, packet: bytes) -> None:
    """Send any octets as a request's data, and print the answer's data as they are."""
    if not packet:
        raise click.UsageError("a request has one octet at least")
    click.echo(_exchange(mountpoint, packet).hex())


def _octets(content: bytes) -> bytes:
    text = content.strip()
    is_hex = text.isascii() and set(text.decode()) <= set(string.hexdigits) and len(text) % 2 == 0
    return bytes.fromhex(text.decode()) if is_hex else content


def _exchange(mountpoint: str, packet: bytes) -> bytes:
    path = os.path.join(mountpoint, "control", "request")
    try:
        descriptor = open_in_time(path, os.O_RDWR | os.O_CLOEXEC)
    except TimeoutError:
        raise Failed(NO_ANSWER.format(mountpoint)) from None
    except OSError as error:
        if error.errno in _NO_DEVICE:
            raise Failed(f"no device is mounted at {mountpoint}") from None
        raise Failed(f"cannot open {path}: {error.strerror}") from None
    try:
        os.write(descriptor, packet)
        return os.read(descriptor, MESSAGE_DATA_MAX)
    except OSError as error:
        known = _ERRORS.get(error.errno or 0)
        raise Failed(known or f"the exchange failed: {error.strerror}") from None
    finally:
        os.close(descriptor)
