"""The kernel's verdict on a daemon's answer: keystore.c.

EIO, for tag 65 and tag 67: a status other than 0, another tag, fewer than four octets, octets
missing, an encrypted key above 512 octets.

EIO, for tag 65 alone: a packet length that cannot be read, a payload below three octets, a wrong
checksum, a key above 64 octets, an unknown cipher code.

EINVAL, for tag 67 alone: a packet length that cannot be read.
"""

import errno

from ecryptfs_cuse.core.errors import DeviceError
from ecryptfs_cuse.wire.ciphers import KNOWN_CODES
from ecryptfs_cuse.wire.errors import LengthError, ParseError
from ecryptfs_cuse.wire.tags import (
    ENCRYPTED_KEY_MAX,
    KEY_MAX,
    STATUS_OK,
    FileKey,
    Tag65,
    Tag67,
    parse_file_key,
    parse_reply,
)

REPLY_MIN = 4


def decrypted_key(answer: bytes) -> FileKey:
    """The key in the answer to tag 64 (parse_tag_65_packet). Raises DeviceError."""
    try:
        file_key = parse_file_key(_content(answer, Tag65))
    except ParseError as error:
        raise DeviceError(errno.EIO, str(error)) from None
    if len(file_key.key) > KEY_MAX:
        raise DeviceError(errno.EIO, f"the key has more than {KEY_MAX} octets")
    if file_key.cipher_code not in KNOWN_CODES:
        raise DeviceError(errno.EIO, f"the cipher code {file_key.cipher_code} is unknown")
    return file_key


def encrypted_key(answer: bytes) -> bytes:
    """The encrypted key in the answer to tag 66 (parse_tag_67_packet). Raises DeviceError."""
    try:
        key = _content(answer, Tag67)
    except LengthError as error:
        raise DeviceError(errno.EINVAL, str(error)) from None
    except ParseError as error:
        raise DeviceError(errno.EIO, str(error)) from None
    if len(key) > ENCRYPTED_KEY_MAX:
        raise DeviceError(errno.EIO, f"the encrypted key has more than {ENCRYPTED_KEY_MAX} octets")
    return key


def _content(answer: bytes, kind: type[Tag65 | Tag67]) -> bytes:
    if len(answer) >= 2 and answer[0] == kind.TAG and answer[1] != STATUS_OK:
        raise ParseError(f"the daemon could not do it (status {answer[1]})")
    if len(answer) < REPLY_MIN:
        raise ParseError(f"an answer has at least {REPLY_MIN} octets, not {len(answer)}")
    if answer[0] != kind.TAG:
        raise ParseError(f"the answer has tag {answer[0]} instead of {kind.TAG}")
    return parse_reply(answer).content
