"""PKCS#11 URIs (RFC 7512), as far as they name a private key: text to values and back. No I/O.

    >>> uri = parse_uri("pkcs11:token=Backup%20key;id=%01?module-path=/usr/lib/hsm.so")
    >>> uri.token, uri.id, uri.module_path
    ('Backup key', b'\\x01', '/usr/lib/hsm.so')

The path, in front of the question mark, says which token and which key; the query says by which
library, and where the token's PIN is. An attribute that is not known here is refused in either: a
key that was not meant might be found without it. (RFC 7512 lets unknown ones in the query be
ignored; a misspelt module-path would then be.)
"""

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

_RESERVED = ":[]@!$'()*+,="
_PATH_SAFE = _RESERVED + "&"
_QUERY_SAFE = _RESERVED + "/?|"
_UNRESERVED = "A-Za-z0-9._~\\-"

_PATH = ("token", "manufacturer", "serial", "model", "object", "id", "type")
_QUERY = ("module-path", "pin-source")


class UriError(Exception):
    """A text is not a PKCS#11 URI of a private key; the message says why."""


@dataclass(frozen=True, slots=True)
class Pkcs11Uri:
    """Which private key. None means any.

    token: the token's label. manufacturer, serial, model: the token's. object: the key's label
    (CKA_LABEL). id: the key's CKA_ID. module_path: the PKCS#11 library, an absolute path or a file
    name that the dynamic linker finds. pin_source: the absolute path of a file with the PIN.
    """

    token: str | None = None
    manufacturer: str | None = None
    serial: str | None = None
    model: str | None = None
    object: str | None = None
    id: bytes | None = None
    module_path: str | None = None
    pin_source: str | None = None


def parse_uri(text: str) -> Pkcs11Uri:
    """Read a URI. Raises UriError; its message never shows the URI as a whole, nor a PIN."""
    scheme, colon, rest = text.partition(":")
    if not colon or scheme.lower() != "pkcs11":
        raise UriError("a PKCS#11 URI starts with pkcs11:, as in pkcs11:token=NAME;object=NAME")
    path, question, query = rest.partition("?")
    values = _attributes(path, ";", _PATH, _PATH_SAFE)
    values |= _attributes(query, "&", _QUERY, _QUERY_SAFE) if question else {}
    if values.pop("type", b"private") != b"private":
        raise UriError("type has to be private: the key is a private key")
    key_id = values.pop("id", None)
    texts = {name: _text(name, value) for name, value in values.items()}
    module_path, pin_source = texts.pop("module-path", None), texts.pop("pin-source", None)
    return Pkcs11Uri(
        **texts,
        id=key_id,
        module_path=_module_path(module_path) if module_path is not None else None,
        pin_source=_pin_source(pin_source) if pin_source is not None else None,
    )


def build_uri(uri: Pkcs11Uri) -> str:
    """The text of a URI: what ``parse_uri`` reads."""
    path = [
        f"{name}={quote(value, safe=_PATH_SAFE)}"
        for name, value in (
            ("token", uri.token),
            ("manufacturer", uri.manufacturer),
            ("serial", uri.serial),
            ("model", uri.model),
            ("object", uri.object),
        )
        if value is not None
    ]
    if uri.id is not None:
        path.append("id=" + "".join(f"%{octet:02X}" for octet in uri.id))
    query = []
    if uri.module_path is not None:
        query.append(f"module-path={quote(uri.module_path, safe=_QUERY_SAFE)}")
    if uri.pin_source is not None:
        query.append(f"pin-source=file:{quote(uri.pin_source, safe=_QUERY_SAFE)}")
    return "pkcs11:" + ";".join(path) + ("?" if query else "") + "&".join(query)


def _attributes(part: str, separator: str, known: tuple[str, ...], safe: str) -> dict[str, bytes]:
    """The attributes of a path or a query, their values decoded."""
    values: dict[str, bytes] = {}
    for attribute in part.split(separator) if part else ():
        name, equals, value = attribute.partition("=")
        if name == "pin-value":
            raise UriError(
                "pin-value is not accepted, since command lines and configuration files are read "
                "by others: put the PIN into a file that pin-source names, or use --passphrase"
            )
        if not equals:
            raise UriError(f"an attribute is written name=value, and {separator!r} is between two")
        if name not in known:
            raise UriError(f"the attribute {name!r} is not known here; known are {_list(known)}")
        if name in values:
            raise UriError(f"the attribute {name} is given twice")
        values[name] = _decoded(name, value, safe)
    return values


def _decoded(name: str, value: str, safe: str) -> bytes:
    wrong = re.search(rf"%(?![0-9A-Fa-f]{{2}})|[^%{_UNRESERVED}{re.escape(safe)}]", value)
    if wrong is None:
        return unquote_to_bytes(value)
    if wrong[0] == "%":
        raise UriError(f"in {name}, a % is not followed by two hexadecimal digits")
    encoded = quote(wrong[0], safe="", errors="replace")
    raise UriError(f"in {name}, {wrong[0]!r} has to be written {encoded}")


def _text(name: str, value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise UriError(f"{name} is not UTF-8") from None
    if "\0" in text:
        raise UriError(f"{name} has a NUL in it")
    return text


def _module_path(path: str) -> str:
    # Neither may depend on the working directory: a daemon's is not that of who wrote the URI.
    if not path or ("/" in path and not path.startswith("/")):
        raise UriError("module-path is an absolute path, or a file name alone")
    return path


def _pin_source(source: str) -> str:
    """The path of the file: RFC 7512, section 2.4, has it as a file: URI or as it is."""
    if source.startswith("|"):
        raise UriError("pin-source runs no programs: use --passphrase askpass:PROGRAM for that")
    path = source.removeprefix("file:")
    if path != source:
        path = re.sub(r"\A//(localhost)?(?=/)", "", path)
    if not path.startswith("/") or path.startswith("//"):
        raise UriError("pin-source is the absolute path of a file, as in pin-source=file:/etc/pin")
    return path


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1]
