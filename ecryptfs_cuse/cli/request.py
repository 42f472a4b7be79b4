"""ecryptfs-cuse request: be the kernel that asks a key daemon."""

import errno
import os
import string
import sys
from typing import Any

import click

from ecryptfs_cuse.cli.errors import Failed, unreachable
from ecryptfs_cuse.core.errors import DeviceError
from ecryptfs_cuse.core.keystore import decrypted_key, encrypted_key
from ecryptfs_cuse.fuse.patience import open_in_time
from ecryptfs_cuse.wire.ciphers import CIPHER_CODES, cipher_code
from ecryptfs_cuse.wire.errors import BuildError
from ecryptfs_cuse.wire.packet import MESSAGE_DATA_MAX
from ecryptfs_cuse.wire.tags import FileKey, Tag64, Tag66, build_file_key, build_request

_ERRORS = {
    errno.ENOTCONN: "you have no key daemon on this device: start one as this user",
    errno.ENOMEM: "too many requests are waiting: every message context that you may use is in use",
    errno.ENOMSG: "the key daemon did not answer in time",
    errno.ESHUTDOWN: "the device was unmounted before the answer came",
    errno.ECONNABORTED: "the device's server died before the answer came",
}

_FILE_MAX = 4 * MESSAGE_DATA_MAX
"""Bytes of a file with an encrypted key: two digits a byte, and as much white space."""


def _hex(text: str) -> bytes:
    """Hexadecimal digits, with any white space; what is wrong with others.

    They may be a key's: nothing here repeats them.
    """
    digits = "".join(text.split())
    if not set(digits) <= set(string.hexdigits):
        raise click.BadParameter("give hexadecimal digits")
    if len(digits) % 2:
        raise click.BadParameter("odd number of hexadecimal digits: each byte needs two")
    return bytes.fromhex(digits)


def _encrypted_key(path: str) -> bytes:
    """The content of a file, or what its hexadecimal digits say where it has nothing else."""
    content = _content(path)
    if len(content) > _FILE_MAX:
        raise click.BadParameter("the file is too large to be an encrypted key")
    if not content.strip():
        raise click.BadParameter("the file is empty")
    text = content.decode("latin-1")
    is_hex = set(text) <= set(string.hexdigits + string.whitespace)
    return _hex(text) if is_hex else content


def _content(path: str) -> bytes:
    """As much of a file as is needed to tell that it is too large."""
    name = "standard input" if path == "-" else click.format_filename(path)
    try:
        if path == "-":
            # None where it is set not to block, and there is nothing.
            return sys.stdin.buffer.read(_FILE_MAX + 1) or b""
        with open(path, "rb") as file:
            return file.read(_FILE_MAX + 1)
    except OSError as error:
        why = "it is not open for reading" if error.errno == errno.EBADF else error.strerror
        raise click.BadParameter(f"cannot read {name}: {why}") from None


class _Discreet(click.Command):
    """click would repeat an argument that is too many, and it may be a key."""

    allow_extra_args = True

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, unless there are such arguments."""
        if ctx.args:
            raise click.UsageError("unexpected argument: give values with options", ctx)
        return super().invoke(ctx)


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


@request.command(cls=_Discreet)
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
    is_random = key is None
    if key is None:
        key = os.urandom(16 if key_bytes is None else key_bytes)
    try:
        payload = build_file_key(FileKey(cipher_code(cipher, len(key)), key))
        packet = build_request(Tag66(sig, payload))
    except BuildError as error:
        raise click.UsageError(str(error)) from None
    if is_random:
        click.echo(f"file key: {key.hex()}", err=True)
    answer = _exchange(mountpoint, packet)
    try:
        encrypted = encrypted_key(answer)
    except DeviceError as error:
        raise Failed(f"the file key was not encrypted: {error.strerror}") from None
    click.echo(encrypted.hex())


@request.command(cls=_Discreet)
@_mount_option
@_sig_option
@click.option(
    "--encrypted",
    required=True,
    metavar="FILE|-",
    type=_encrypted_key,
    help="The encrypted key, as bytes or in hexadecimal; - for standard input.",
)
def decrypt(mountpoint: str, sig: str, encrypted: bytes) -> None:
    """Have a file key decrypted: tag 64, answered by tag 65."""
    try:
        packet = build_request(Tag64(sig, encrypted))
    except BuildError as error:
        raise click.UsageError(str(error)) from None
    answer = _exchange(mountpoint, packet)
    try:
        key = decrypted_key(answer).key
    except DeviceError as error:
        raise Failed(f"the file key was not decrypted: {error.strerror}") from None
    click.echo(key.hex())


@request.command()
@_mount_option
@click.argument("packet", type=_hex, metavar="HEX...", nargs=-1, required=True)
def raw(mountpoint: str, packet: tuple[bytes, ...]) -> None:
    """Send any bytes as a request's data, and print the answer's data as they are."""
    if not any(packet):
        raise click.UsageError("a request needs at least one byte")
    click.echo(_exchange(mountpoint, b"".join(packet)).hex())


def _exchange(mountpoint: str, packet: bytes) -> bytes:
    if len(packet) > MESSAGE_DATA_MAX:
        raise click.UsageError(f"a request has {MESSAGE_DATA_MAX} bytes at most, not {len(packet)}")
    path = os.path.join(mountpoint, "control", "request")
    try:
        descriptor = open_in_time(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise unreachable(mountpoint, error) from None
    try:
        os.write(descriptor, packet)
        return os.read(descriptor, MESSAGE_DATA_MAX)
    except OSError as error:
        known = _ERRORS.get(error.errno or 0)
        raise Failed(known or f"the exchange failed: {error.strerror}") from None
    finally:
        os.close(descriptor)
