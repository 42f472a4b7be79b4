"""The key module pkcs11: RSA private keys in tokens: smart cards, HSMs, SoftHSM.

A location is a PKCS#11 URI (RFC 7512):

    pkcs11:token=Backup;object=files?module-path=/usr/lib/hsm.so&pin-source=file:/etc/pin

Without module-path, the libraries are those that p11-kit knows.

Encrypting takes the public key alone, and is done here. Decrypting is done by the token, with
CKM_RSA_PKCS_OAEP, SHA-1, MGF1 with SHA-1 and no label. A session does one thing at a time, so a key
has several.
"""

import contextlib
import dataclasses
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pkcs11
from cryptography.hazmat.primitives.asymmetric import rsa
from pkcs11 import MGF, Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass, _pkcs11
from pkcs11.types import DecryptMixin, Object, Session, Token

from daemon_client.key import KeyModule, KeyOpenError, KeyOperationError
from daemon_client.modules.pkcs11_object import (
    attribute_of,
    integer_of,
    name_of,
    public_key_of,
    shown_uri,
    template_of,
)
from daemon_client.modules.pkcs11_token import (
    PROXY,
    Login,
    find_token,
    identity_of,
    load_library,
    login_of,
    reason,
)
from daemon_client.modules.pkcs11_uri import Pkcs11Uri, UriError, parse_uri
from daemon_client.modules.rsa import RsaKey
from daemon_client.secret import Secret, SecretError, read_secret

SESSIONS_MAX = 4
"""The most sessions of one key: as many requests are decrypted at a time."""

_OAEP = (Mechanism.SHA_1, MGF.SHA1, None)
_SESSION_GONE = (
    pkcs11.SessionHandleInvalid,
    pkcs11.SessionClosed,
    pkcs11.DeviceRemoved,
    pkcs11.DeviceError,
    pkcs11.TokenNotPresent,
    pkcs11.TokenNotRecognised,
)
_KEY_GONE = (pkcs11.UserNotLoggedIn, pkcs11.KeyHandleInvalid, pkcs11.ObjectHandleInvalid)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A session, and the key in it.

    pin_each_time: the key wants the PIN for each operation. epoch: that of the login.
    """

    session: Session
    private_key: DecryptMixin
    pin_each_time: bool
    epoch: int


class Pkcs11Key(RsaKey):
    """An RSA private key in a token. The token's Login has been entered; close() leaves it."""

    def __init__(
        self, library: _pkcs11.lib, token: Token, uri: Pkcs11Uri, public_key: rsa.RSAPublicKey
    ) -> None:
        super().__init__(public_key, f"pkcs11 {token.label}, {library.so}", shown_uri(uri))
        self._library = library
        # The same token again, even where several fit the URI by then.
        label, serial = identity_of(token)
        self._uri = dataclasses.replace(uri, token=label, serial=serial)
        self._login = login_of(library, token)
        self._turns = threading.BoundedSemaphore(SESSIONS_MAX)
        self._lock = threading.Lock()
        self._idle: list[_Opened] = []
        self._closed = False
        self._missed_in: int | None = None

    def decrypt(self, ciphertext: bytes) -> bytes:
        """Decrypt what ``encrypt`` has made. Raises KeyOperationError.

        Where the token has lost the session or the login, both are made anew, once.
        """
        if len(ciphertext) != (self.bits + 7) // 8:
            raise KeyOperationError("the ciphertext was not made with this key")
        try:
            with self._turns:
                return self._decrypt(ciphertext)
        except pkcs11.PKCS11Error as error:
            raise KeyOperationError(f"the token does not decrypt: {reason(error)}") from None
        except KeyOpenError as error:
            raise KeyOperationError(f"the key cannot be opened again: {error}") from None

    def try_out(self) -> None:
        """Encrypt and decrypt something. Raises KeyOpenError.

        Encrypting asks no token: without this, files could be written that nobody can read.
        """
        payload = os.urandom(16)
        try:
            opened = self.decrypt(self.encrypt(payload))
        except KeyOperationError as error:
            raise KeyOpenError(f"{self._where} is of no use: {error}") from None
        if opened != payload:
            raise KeyOpenError(f"{self._where}: public and private key are not a pair")

    def close(self) -> None:
        """Close the sessions; the last key of a token logs out."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._drop_idle(_close)
        self._login.leave()

    def _decrypt(self, ciphertext: bytes) -> bytes:
        opened = self._take() or self._open()
        try:
            return self._decrypt_in(opened, ciphertext)
        except _SESSION_GONE:
            # Their handles may be others' by now: they are forgotten, not closed.
            self._drop_idle(lambda session: None)
        except _KEY_GONE as error:
            self._drop_idle(_close)
            if isinstance(error, pkcs11.UserNotLoggedIn):
                self._login.doubt(opened.epoch)
                self._login.again(opened.session.token)
        return self._decrypt_in(self._open(), ciphertext)

    def _decrypt_in(self, opened: _Opened, ciphertext: bytes) -> bytes:
        """Decrypt, and keep the session for the next time, unless the token reports an error."""
        try:
            payload = opened.private_key.decrypt(
                ciphertext,
                mechanism=Mechanism.RSA_PKCS_OAEP,
                mechanism_param=_OAEP,
                pin=self._login.pin_for_operation() if opened.pin_each_time else None,
            )
        except _SESSION_GONE:
            raise
        except BaseException as error:
            # The operation may still be under way in it.
            _close(opened.session)
            if isinstance(error, pkcs11.PinIncorrect):
                self._login.refuse()
            raise
        assert isinstance(payload, bytes), "python-pkcs11 answers octets with octets"
        with self._lock:
            keep = not self._closed
            if keep:
                self._idle.append(opened)
        if not keep:
            _close(opened.session)
        return payload

    def _take(self) -> _Opened | None:
        with self._lock:
            if self._closed:
                raise KeyOperationError("the key is closed")
            return self._idle.pop() if self._idle else None

    def _open(self) -> _Opened:
        """A new session, in whatever slot the token is now. Raises KeyOpenError, PKCS11Error."""
        epoch = self._login.epoch
        session = find_token(self._library, self._uri).open()
        try:
            if not _private_keys(session, self._uri) and epoch != self._missed_in:
                self._login.doubt(epoch)
            try:
                private_key = _private_key(session, self._uri, self._login)
            except KeyOpenError:
                # It is the key that is not there, not the login: no need to doubt that each time.
                self._missed_in = self._login.epoch
                raise
            modulus = integer_of(private_key, Attribute.MODULUS)
            if modulus not in (None, self._public_key.public_numbers().n):
                raise KeyOpenError("another key is there now")
            pin_each_time = bool(attribute_of(private_key, Attribute.ALWAYS_AUTHENTICATE))
            return _Opened(session, private_key, pin_each_time, self._login.epoch)
        except BaseException:
            _close(session)
            raise

    def _drop_idle(self, drop: Callable[[Session], None]) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for opened in idle:
            drop(opened.session)


class Pkcs11(KeyModule):
    """Tokens behind any PKCS#11 library."""

    alias = "pkcs11"
    has_uris = True

    def open(self, location: str, passphrase: Secret | None) -> Pkcs11Key:
        """Find a private key, and try it. A passphrase given is the PIN, instead of pin-source."""
        with _open_errors():
            uri = parse_uri(location)
            library, token = _token(uri)
            login = login_of(library, token)
            epoch = login.epoch
            _enter(login, token, uri, passphrase)
            with contextlib.ExitStack() as undo:
                undo.callback(login.leave)
                with contextlib.closing(token.open()) as session:
                    if not _private_keys(session, uri):
                        # A login that was there before may have been lost, and nobody have noticed.
                        login.doubt(epoch)
                    public_key = public_key_of(session, _private_key(session, uri, login), uri)
                key = Pkcs11Key(library, token, uri, public_key)
                undo.pop_all()
                undo.callback(key.close)
                key.try_out()
                undo.pop_all()
            return key

    def generate(self, location: str, passphrase: Secret | None, bits: int) -> None:
        """Have the token make a key pair with the URI's label and CKA_ID (by default, random)."""
        with _open_errors():
            uri = parse_uri(location)
            if not uri.object and not uri.id:
                raise KeyOpenError("a new key needs a name: give object=NAME or id=%01 in the URI")
            library, token = _token(uri)
            login = login_of(library, token)
            _enter(login, token, uri, passphrase)
            try:
                with contextlib.closing(token.open(rw=True)) as session:
                    _check_free(session, uri)
                    _generate(session, uri, bits)
            finally:
                login.leave()


@contextlib.contextmanager
def _open_errors() -> Iterator[None]:
    try:
        yield
    except UriError as error:
        raise KeyOpenError(f"the location is not understood: {error}") from None
    except SecretError as error:
        raise KeyOpenError(str(error)) from None
    except pkcs11.PKCS11Error as error:
        raise KeyOpenError(f"the PKCS#11 library reports an error: {reason(error)}") from None


def _token(uri: Pkcs11Uri) -> tuple[_pkcs11.lib, Token]:
    library = load_library(uri.module_path or PROXY)
    return library, find_token(library, uri)


def _enter(login: Login, token: Token, uri: Pkcs11Uri, passphrase: Secret | None) -> None:
    """Enter the login with the PIN, whichever of the two ways it comes."""
    if passphrase is not None or uri.pin_source is None:
        login.enter(token, passphrase)
        return
    pin = read_secret(f"file:{uri.pin_source}", f"the token {token.label}")
    try:
        login.enter(token, pin)
    finally:
        pin.wipe()


def _private_keys(session: Session, uri: Pkcs11Uri) -> list[Object]:
    private = {Attribute.CLASS: ObjectClass.PRIVATE_KEY}
    return list(session.get_objects(private | template_of(uri.object, uri.id)))


def _private_key(session: Session, uri: Pkcs11Uri, login: Login) -> DecryptMixin:
    """The one private key that is meant. Raises KeyOpenError."""
    found = _private_keys(session, uri)
    if not found:
        # Private objects are not seen by those who are not logged in.
        login.again(session.token)
        found = _private_keys(session, uri)
    if len(found) != 1:
        sought = name_of(uri.object, uri.id)
        listed = "; ".join(
            name_of(attribute_of(each, Attribute.LABEL), attribute_of(each, Attribute.ID))
            for each in found or _private_keys(session, Pkcs11Uri())
        )
        raise KeyOpenError(
            f"{'several private keys are' if found else 'no private key is'} meant by {sought} "
            f"on the token {session.token.label!r}, which has: {listed or 'none'}"
        )
    if attribute_of(found[0], Attribute.KEY_TYPE) != KeyType.RSA:
        raise KeyOpenError(f"{shown_uri(uri)} is a private key that is not RSA")
    if not isinstance(found[0], DecryptMixin):
        raise KeyOpenError(f"{shown_uri(uri)} is not allowed to decrypt (CKA_DECRYPT)")
    return found[0]


def _check_free(session: Session, uri: Pkcs11Uri) -> None:
    """Whether no object has the label or the CKA_ID. Raises KeyOpenError."""
    for label, key_id in ((uri.object, None), (None, uri.id)):
        if (label or key_id) and list(session.get_objects(template_of(label, key_id))):
            raise KeyOpenError(
                f"the token {session.token.label!r} has an object with {name_of(label, key_id)} "
                "already, which is left as it is"
            )


def _generate(session: Session, uri: Pkcs11Uri, bits: int) -> None:
    try:
        session.generate_keypair(
            KeyType.RSA,
            bits,
            id=uri.id or os.urandom(8),
            label=uri.object,
            store=True,
            capabilities=MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT,
            public_template={Attribute.PRIVATE: False},
            private_template={
                Attribute.PRIVATE: True,
                Attribute.SENSITIVE: True,
                Attribute.EXTRACTABLE: False,
            },
        )
    except pkcs11.PKCS11Error as error:
        raise KeyOpenError(
            f"the token {session.token.label!r} makes no RSA key of {bits} bits: {reason(error)}"
        ) from None


def _close(session: Session) -> None:
    with contextlib.suppress(pkcs11.PKCS11Error):
        session.close()
