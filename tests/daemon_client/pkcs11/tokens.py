"""Tokens of SoftHSM 2 behind the key module's back."""

import contextlib
import ctypes
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pkcs11 import Attribute, KeyType, ObjectClass
from pkcs11.types import Session, Token

from daemon_client.key import KeyOpenError
from daemon_client.modules import pkcs11_token
from daemon_client.modules.pkcs11 import Pkcs11, Pkcs11Key
from daemon_client.modules.pkcs11_uri import Pkcs11Uri
from daemon_client.secret import Secret
from ecryptfs_cuse.wire.tags import FileKey, build_file_key
from tests.daemon_client.pkcs11.softhsm import LIBRARY, PIN, in_this_process

PAYLOAD = build_file_key(FileKey(7, bytes(range(16))))
SPY = next(Path("/usr/lib").glob("*/pkcs11-spy.so"), Path("pkcs11-spy.so"))
"""A library of OpenSC's that passes all calls on to another and writes them down."""

OpenKey = Callable[..., Pkcs11Key]


def write_pem(path: Path, private_key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> Path:
    path.write_bytes(private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


def token(label: str) -> Token:
    in_this_process()
    return pkcs11_token.find_token(pkcs11_token.load_library(LIBRARY), Pkcs11Uri(token=label))


def library_call(name: str, *arguments: int | None) -> None:
    """Call the library behind the key's back."""
    function = getattr(ctypes.CDLL(LIBRARY), name)
    function.restype = ctypes.c_ulong
    assert function(*(a if a is None else ctypes.c_ulong(a) for a in arguments)) == 0


def restart_library() -> None:
    library_call("C_Finalize", None)
    pkcs11_token.initialize(LIBRARY)


def logged_in(label: str) -> bool:
    """Whether this process is logged in to a token: only then private objects are seen."""
    with contextlib.closing(token(label).open()) as session:
        return bool(list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})))


def refusal(where: str, pin: str | None = PIN) -> str:
    with pytest.raises(KeyOpenError) as refused:
        Pkcs11().open(where, Secret(pin.encode()) if pin is not None else None)
    assert pin is None or pin not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
    return str(refused.value)


def big(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def store_private(session: Session, private_key: rsa.RSAPrivateKey, **more: object) -> None:
    """Store a private key alone, with attributes by their names."""
    numbers = private_key.private_numbers()
    attributes = {
        Attribute.CLASS: ObjectClass.PRIVATE_KEY,
        Attribute.KEY_TYPE: KeyType.RSA,
        Attribute.TOKEN: True,
        Attribute.PRIVATE: True,
        Attribute.DECRYPT: True,
        Attribute.MODULUS: big(numbers.public_numbers.n),
        Attribute.PUBLIC_EXPONENT: big(numbers.public_numbers.e),
        Attribute.PRIVATE_EXPONENT: big(numbers.d),
        Attribute.PRIME_1: big(numbers.p),
        Attribute.PRIME_2: big(numbers.q),
        Attribute.EXPONENT_1: big(numbers.dmp1),
        Attribute.EXPONENT_2: big(numbers.dmq1),
        Attribute.COEFFICIENT: big(numbers.iqmp),
    }
    attributes |= {Attribute[name]: value for name, value in more.items()}
    session.create_object({each: value for each, value in attributes.items() if value is not None})
