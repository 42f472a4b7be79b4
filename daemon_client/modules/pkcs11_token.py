"""PKCS#11 libraries, their tokens, and being logged in to them: what a process has once of each.

A library is initialised once per process (C_Initialize). python-pkcs11 does so without arguments,
which tells the library that it will be called by one thread at a time; SoftHSM then takes no locks
and fails at random. So a library is first initialised here, with CKF_OS_LOCKING_OK.

A login is of the whole process to a token, not of a session: a second one is an error, and a logout
ends it for everybody. So the keys of one token share a Login. And a token counts wrong PINs and
locks itself: a PIN that it has refused is not shown to it again.

Source: PKCS #11 base specification 2.40, sections 5.4 and 5.6.
"""

import contextlib
import ctypes
import hashlib
import hmac
import os
import threading

import pkcs11
from pkcs11 import TokenFlag, _pkcs11
from pkcs11.types import Session, Token

from daemon_client.key import KeyOpenError, WrongPassphraseError
from daemon_client.modules.pkcs11_uri import Pkcs11Uri
from daemon_client.secret import Secret

PROXY = "p11-kit-proxy.so"
"""The library that stands for all libraries that p11-kit's configuration names."""

_CKF_OS_LOCKING_OK = 0x2
_CKR_OK, _CKR_CRYPTOKI_ALREADY_INITIALIZED = 0, 0x191

_PIN_ERRORS = {
    pkcs11.PinLocked: "the PIN is locked, after too many wrong ones: unlock it with its own tools",
    pkcs11.PinExpired: "the PIN has expired: set a new one with its own tools",
    pkcs11.PinInvalid: "the PIN has characters that no PIN of this token has",
    pkcs11.PinLenRange: "the PIN is longer or shorter than any of this token",
}

_lock = threading.Lock()
_libraries: dict[str, _pkcs11.lib] = {}
_logins: dict[tuple[str, str, str], "Login"] = {}
_digest_key = os.urandom(32)


def load_library(path: str) -> _pkcs11.lib:
    """The library, initialised. Raises KeyOpenError."""
    # Two names of one library are one library: it has one state.
    name = os.path.realpath(path) if "/" in path else path
    with _lock:
        if name not in _libraries:
            initialize(name)
            try:
                _libraries[name] = _Library(name)
            except pkcs11.PKCS11Error as error:
                raise KeyOpenError(
                    f"the PKCS#11 library {path} cannot be used: {reason(error)}"
                ) from None
        return _libraries[name]


def find_token(library: _pkcs11.lib, uri: Pkcs11Uri) -> Token:
    """The one token that the URI means. Raises KeyOpenError, PKCS11Error."""
    tokens = _tokens(library)
    found = [token for token in tokens if _is_meant(token, uri)]
    if len(found) == 1:
        return found[0]
    wanted = {
        "label": uri.token,
        "serial": uri.serial,
        "manufacturer": uri.manufacturer,
        "model": uri.model,
    }
    sought = ", ".join(f"{name} {value!r}" for name, value in wanted.items() if value is not None)
    listed = "; ".join(_shown(token) for token in found or tokens) or "none"
    if found:
        raise KeyOpenError(
            f"several tokens are meant by {sought or 'a URI that names no token'}: {listed}"
        )
    raise KeyOpenError(f"no token has {sought or 'been found'}; {library.so} has: {listed}")


def login_of(library: _pkcs11.lib, token: Token) -> "Login":
    """The login to a token, the same for all keys of that token."""
    identity = (library.so, *identity_of(token))
    with _lock:
        return _logins.setdefault(identity, Login(token.label))


def identity_of(token: Token) -> tuple[str, str]:
    """Label and serial number: what stays the same when a token is put into another slot."""
    return token.label, _serial(token)


def reason(error: pkcs11.PKCS11Error) -> str:
    """What a library reports, without anything of what it was given."""
    # An error that has no class of its own has a text instead: a number, or the linker's words.
    return str(error) if type(error) is pkcs11.PKCS11Error else type(error).__name__


class Login:
    """Being logged in to one token, as long as any of its keys is open."""

    def __init__(self, label: str) -> None:
        self._epoch = 0
        self._label = label
        self._lock = threading.Lock()
        self._users = 0
        self._pin: Secret | None = None
        self._session: Session | None = None
        self._refused: set[bytes] = set()
        self._in_doubt = False

    @property
    def epoch(self) -> int:
        """Grows with each login: that a session of an earlier epoch is lost, tells nothing new."""
        # A login under way counts already: who asks may have seen its effect.
        with self._lock:
            return self._epoch

    def enter(self, token: Token, pin: Secret | None) -> None:
        """Be logged in, for one user more. Raises KeyOpenError, WrongPassphraseError."""
        with self._lock:
            if TokenFlag.LOGIN_REQUIRED in token.flags:
                self._enter(token, pin)
            self._users += 1

    def doubt(self, epoch: int) -> None:
        """Say that the token has lost what a session of that epoch had."""
        with self._lock:
            if self._epoch == epoch:
                self._in_doubt = True

    def again(self, token: Token) -> None:
        """Log in once more if the login is in doubt. Raises KeyOpenError, WrongPassphraseError."""
        # Never without a doubt: python-pkcs11 leaves a session open where it cannot log in.
        with self._lock:
            if self._pin is not None and self._in_doubt:
                self._log_in(token, self._pin)

    def leave(self) -> None:
        """One user less; the last one logs out, and wipes the PIN."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
            if self._session is not None:
                with contextlib.suppress(pkcs11.PKCS11Error):
                    self._session.close()  # which logs out, too
                self._session = None
            if self._pin is not None:
                self._pin.wipe()
                self._pin = None

    def pin_for_operation(self) -> str:
        """The PIN, for a key that wants it each time. Raises WrongPassphraseError."""
        with self._lock:
            if self._pin is None:
                raise WrongPassphraseError("the key wants a PIN, and there is none")
            self._check_not_refused(self._pin)
            return self._pin.octets.decode()

    def refuse(self) -> None:
        """Do not use the PIN again: the token has refused it."""
        with self._lock:
            if self._pin is not None:
                self._refused.add(_digest(self._pin))

    def _enter(self, token: Token, pin: Secret | None) -> None:
        if pin is None or not pin.octets:
            raise WrongPassphraseError(
                f"the token {self._label!r} wants a PIN: say where it comes from, with pin-source "
                "in the URI, with --passphrase, or with passphrase = in the key's configuration"
            )
        if self._pin is None:
            self._log_in(token, pin)
            self._pin = pin.copy()
        elif not hmac.compare_digest(self._pin.octets, pin.octets):
            # The token would say that it is logged in to already, whatever the PIN.
            raise WrongPassphraseError(
                f"the token {self._label!r} is in use with another PIN, for another key; "
                "if the PIN has been changed, stop and start the daemon"
            )

    def _log_in(self, token: Token, pin: Secret) -> None:
        self._check_not_refused(pin)
        try:
            self._session = token.open(user_pin=pin.octets.decode())
        except UnicodeDecodeError:
            raise WrongPassphraseError("a PIN is UTF-8, and this one is not") from None
        except pkcs11.UserAlreadyLoggedIn:
            # By us, or by other code of this process, which then logs out: it is not ours to do.
            pass
        except pkcs11.PinIncorrect:
            self._refused.add(_digest(pin))
            raise WrongPassphraseError(
                f"the PIN is not that of the token {self._label!r}; it will not be tried again, as "
                "tokens lock themselves after a few wrong ones"
            ) from None
        except tuple(_PIN_ERRORS) as error:
            raise WrongPassphraseError(
                f"the token {self._label!r}: {_PIN_ERRORS[type(error)]}"
            ) from None
        except pkcs11.PKCS11Error as error:
            raise KeyOpenError(
                f"cannot log in to the token {self._label!r}: {reason(error)}"
            ) from None
        else:
            self._refused.clear()
            self._epoch += 1
        self._in_doubt = False

    def _check_not_refused(self, pin: Secret) -> None:
        if _digest(pin) in self._refused:
            raise WrongPassphraseError(
                f"the token {self._label!r} has refused this PIN before, so it was not tried "
                "again: if it is the right one now, stop and start the daemon"
            )


class _Library(_pkcs11.lib):
    """A library that is initialised already."""

    def initialize(self) -> None:
        """Go on where the library says so: if it is not true, the next call fails."""
        # p11-kit's proxy is to be initialised by each who loads it, and always takes locks.
        with contextlib.suppress(pkcs11.PKCS11Error):
            super().initialize()


class _InitializeArguments(ctypes.Structure):
    """CK_C_INITIALIZE_ARGS: four functions for locks, flags, a pointer."""

    _fields_ = (
        ("functions", ctypes.c_void_p * 4),
        ("flags", ctypes.c_ulong),
        ("reserved", ctypes.c_void_p),
    )


class _FunctionList(ctypes.Structure):
    """The beginning of CK_FUNCTION_LIST."""

    _fields_ = (
        ("version", ctypes.c_ubyte * 2),
        ("initialize", ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)),
    )


def initialize(name: str) -> None:
    """Initialise a library for several threads. Raises KeyOpenError."""
    try:
        get_functions = ctypes.CDLL(name).C_GetFunctionList
    except OSError as error:
        raise KeyOpenError(f"the PKCS#11 library cannot be loaded: {error}") from None
    except AttributeError:
        raise KeyOpenError(f"{name} is no PKCS#11 library: it has no C_GetFunctionList") from None
    get_functions.restype = ctypes.c_ulong
    functions = ctypes.POINTER(_FunctionList)()
    result = get_functions(ctypes.byref(functions))
    if result == _CKR_OK:
        arguments = _InitializeArguments(flags=_CKF_OS_LOCKING_OK)
        result = functions.contents.initialize(ctypes.addressof(arguments))
    if result not in (_CKR_OK, _CKR_CRYPTOKI_ALREADY_INITIALIZED):
        raise KeyOpenError(f"the PKCS#11 library {name} does not start: error {result:#x}")


def _tokens(library: _pkcs11.lib) -> list[Token]:
    tokens = []
    for slot in library.get_slots(token_present=True):
        # What is pulled out, or is no token, is none of our business unless it is the one we want.
        with contextlib.suppress(pkcs11.TokenNotPresent, pkcs11.TokenNotRecognised):
            tokens.append(slot.get_token())
    return [token for token in tokens if TokenFlag.TOKEN_INITIALIZED in token.flags]


def _is_meant(token: Token, uri: Pkcs11Uri) -> bool:
    return all(
        wanted is None or wanted == actual
        for wanted, actual in (
            (uri.token, token.label),
            (uri.serial, _serial(token)),
            (uri.manufacturer, token.manufacturer_id),
            (uri.model, token.model),
        )
    )


def _serial(token: Token) -> str:
    return token.serial.rstrip(b"\0 ").decode("utf-8", "replace")


def _shown(token: Token) -> str:
    return f"{token.label!r} (serial {_serial(token)}, {token.manufacturer_id}, {token.model})"


def _digest(pin: Secret) -> bytes:
    """Tells PINs apart, and tells nothing of them."""
    return hashlib.blake2b(pin.octets, key=_digest_key).digest()
