"""What objects in a PKCS#11 token show of themselves, and how they are named."""

import dataclasses

import pkcs11
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from pkcs11 import Attribute, ObjectClass
from pkcs11.types import Object, Session

from daemon_client.key import KeyOpenError
from daemon_client.modules.pkcs11_uri import Pkcs11Uri, build_uri


def public_key_of(session: Session, private_key: Object, uri: Pkcs11Uri) -> rsa.RSAPublicKey:
    """The public half: its own, or that of what has the same CKA_ID. Raises KeyOpenError."""
    modulus = integer_of(private_key, Attribute.MODULUS)
    found = {_numbers(private_key)}
    if found == {None}:
        key_id = attribute_of(private_key, Attribute.ID)
        for kind in (ObjectClass.PUBLIC_KEY, ObjectClass.CERTIFICATE) if key_id else ():
            same = session.get_objects({Attribute.CLASS: kind, Attribute.ID: key_id})
            found |= {_numbers(each) for each in list(same)}
    numbers = [each for each in found if each is not None and modulus in (None, each.n)]
    if len(numbers) != 1:
        raise KeyOpenError(
            f"{shown_uri(uri)} does not show its modulus and exponent, and not one RSA public key "
            "or certificate with its CKA_ID is on the token: store the public key there too"
        )
    try:
        return numbers[0].public_key()
    except ValueError:
        raise KeyOpenError(f"{shown_uri(uri)} is an RSA key that is too small or odd") from None


def _numbers(of: Object) -> rsa.RSAPublicNumbers | None:
    """Modulus and exponent that an object shows."""
    if of.object_class == ObjectClass.CERTIFICATE:
        try:
            certificate = x509.load_der_x509_certificate(of[Attribute.VALUE])
            public_key = certificate.public_key()
        except (ValueError, UnsupportedAlgorithm):
            return None
        return public_key.public_numbers() if isinstance(public_key, rsa.RSAPublicKey) else None
    modulus = integer_of(of, Attribute.MODULUS)
    exponent = integer_of(of, Attribute.PUBLIC_EXPONENT)
    return rsa.RSAPublicNumbers(exponent, modulus) if modulus and exponent else None


def attribute_of(of: Object, attribute: Attribute) -> object:
    """An attribute's value; None where it is not shown, or not to be read."""
    try:
        return of[attribute]
    except (pkcs11.AttributeTypeInvalid, pkcs11.AttributeSensitive, pkcs11.FunctionFailed):
        return None
    except ValueError:  # a key type that python-pkcs11 does not know, a label that is not UTF-8
        return None


def integer_of(of: Object, attribute: Attribute) -> int | None:
    """A big integer's value; None where it is not shown."""
    octets = attribute_of(of, attribute)
    return int.from_bytes(octets, "big") if isinstance(octets, bytes) and octets else None


def template_of(label: str | None, key_id: bytes | None) -> dict[Attribute, object]:
    """What to look for."""
    wanted = {Attribute.LABEL: label, Attribute.ID: key_id}
    return {attribute: value for attribute, value in wanted.items() if value is not None}


def name_of(label: object, key_id: object) -> str:
    """How a key is named to people."""
    names = [f"object={label}"] if label else []
    if isinstance(key_id, bytes) and key_id:
        names.append("id=" + "".join(f"%{octet:02X}" for octet in key_id))
    return ";".join(names) or "no name"


def shown_uri(uri: Pkcs11Uri) -> str:
    """The URI, without where its PIN is."""
    return build_uri(dataclasses.replace(uri, pin_source=None))
