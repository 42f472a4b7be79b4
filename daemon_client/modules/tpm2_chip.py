"""A TPM 2.0 at work: the connection to it, the keys that are loaded in it, and the session.

File keys do not cross the bus to the TPM in the clear: all operations are in one HMAC session that
encrypts the first parameter of commands and responses. Its key comes from a salt that only the TPM
can read: it is encrypted with the first key opened. But a new key's passphrase crosses as it is.

A TPM without a resource manager has places for three keys, one of which is needed to load others.
"""

import contextlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import tpm2_pytss as tss
from tpm2_pytss.tsskey import TSSPrivKey

from daemon_client.key import KeyOperationError
from daemon_client.secret import Secret

T = TypeVar("T")

_ENCRYPTED = tss.TPMA_SESSION.CONTINUESESSION | tss.TPMA_SESSION.DECRYPT | tss.TPMA_SESSION.ENCRYPT
_OAEP_SHA1 = tss.TPMT_RSA_DECRYPT(
    scheme=tss.TPM2_ALG.OAEP,
    details=tss.TPMU_ASYM_SCHEME(oaep=tss.TPMS_SCHEME_HASH(hashAlg=tss.TPM2_ALG.SHA1)),
)
_AES_128_CFB = tss.TPMT_SYM_DEF(
    algorithm=tss.TPM2_ALG.AES,
    keyBits=tss.TPMU_SYM_KEY_BITS(aes=128),
    mode=tss.TPMU_SYM_MODE(aes=tss.TPM2_ALG.CFB),
)

_UNKNOWN = range(tss.TPM2_RC.REFERENCE_H0, tss.TPM2_RC.REFERENCE_S6 + 1)
"""What a TPM answers that was reset, and knows neither our keys nor our session any more."""

# The library writes several lines about each error on standard error, but we report it ourselves.
# It looks at this when it first has something to say.
os.environ.setdefault("TSS2_LOG", "all+none")


@dataclass(frozen=True, eq=False)
class Loadable:
    """What it takes to have a key loaded, again and again: a key file's content, or a handle."""

    origin: TSSPrivKey | int
    passphrase: Secret

    def load(self, context: tss.ESAPI) -> tss.ESYS_TR:
        """Raises TSS2_Exception."""
        password = bytes(self.passphrase.octets) or None
        if isinstance(self.origin, int):
            handle = context.tr_from_tpmpublic(self.origin)
            context.tr_set_auth(handle, password)
            return handle
        file: TSSPrivKey = self.origin
        corrected = TSSPrivKey(file.private, file.public, password is None, file.parent)
        # Loads its parent too, and flushes that.
        return corrected.load(context, password)

    def unload(self, context: tss.ESAPI, handle: tss.ESYS_TR) -> None:
        """Raises TSS2_Exception."""
        if isinstance(self.origin, int):
            context.tr_close(handle)
        else:
            context.flush_context(handle)


class Chip:
    """A TPM: the connection to it, and what is loaded through it, while any key of it is open.

    store: the name of the key store. Methods raise TSS2_Exception.
    """

    def __init__(self, tcti: str | None) -> None:
        self.store = "tpm2" if tcti is None else f"tpm2:{tcti}"
        self._tcti = tcti
        self._lock = threading.Lock()
        self._context: tss.ESAPI | None = None
        self._session: tss.ESYS_TR | None = None
        self._open: set[Loadable] = set()
        self._handles: dict[Loadable, tss.ESYS_TR] = {}

    def public(self, key: Loadable) -> tss.TPM2B_PUBLIC:
        """Open a key; its public part."""
        with self._lock:
            self._open.add(key)
            return self._run(lambda context: context.read_public(self._load(context, key))[0])

    def decrypt(self, key: Loadable, ciphertext: bytes) -> bytes:
        """Decrypt with an open key. Raises KeyOperationError for one that is not."""

        def run(context: tss.ESAPI) -> bytes:
            handle = self._load(context, key)
            session = self._join(context, handle)
            return bytes(context.rsa_decrypt(handle, ciphertext, _OAEP_SHA1, b"", session1=session))

        with self._lock:
            if key not in self._open:
                raise KeyOperationError("the key is closed")
            return self._run(run)

    def make(self, bits: int, password: bytes) -> bytes:
        """A key file's content, with a new key."""
        with self._lock:
            try:
                made = self._run(lambda each: TSSPrivKey.create_rsa(each, bits, password=password))
                return bytes(made.to_pem())
            finally:
                self._rest()

    def forget(self, key: Loadable) -> None:
        """Close a key, if it is open. It raises nothing."""
        with self._lock:
            self._open.discard(key)
            self._unload(key)
            key.passphrase.wipe()
            self._rest()

    def _run(self, operation: Callable[[tss.ESAPI], T]) -> T:
        """Do it, and once more on a new connection if the TPM has gone away since the last time."""
        while True:
            is_new = self._context is None
            try:
                if self._context is None:
                    self._context = tss.ESAPI(self._tcti)
                return operation(self._context)
            except tss.TSS2_Exception as error:
                is_lost = is_out_of_reach(error) or response_code(error) in _UNKNOWN
                if is_lost:
                    self._disconnect()
                if is_new or not is_lost:
                    raise

    def _load(self, context: tss.ESAPI, key: Loadable) -> tss.ESYS_TR:
        if key not in self._handles:
            self._handles[key] = key.load(context)
        return self._handles[key]

    def _unload(self, key: Loadable) -> None:
        handle = self._handles.pop(key, None)
        if handle is not None:
            with contextlib.suppress(tss.TSS2_Exception):
                key.unload(self._context, handle)

    def _join(self, context: tss.ESAPI, handle: tss.ESYS_TR) -> tss.ESYS_TR:
        """The session; if there is none yet, one salted with this key."""
        if self._session is None:
            unbound, kind, digest = tss.ESYS_TR.NONE, tss.TPM2_SE.HMAC, tss.TPM2_ALG.SHA256
            session = context.start_auth_session(handle, unbound, kind, _AES_128_CFB, digest)
            context.trsess_set_attributes(session, _ENCRYPTED)
            self._session = session
        return self._session

    def _rest(self) -> None:
        """Let others have the TPM, if no key is open."""
        if not self._open:
            self._disconnect()

    def _disconnect(self) -> None:
        """Flush all that was loaded, as far as the TPM still knows it, and end the connection."""
        if self._context is None:
            return
        for key in list(self._handles):
            self._unload(key)
        if self._session is not None:
            with contextlib.suppress(tss.TSS2_Exception):
                self._context.flush_context(self._session)
        self._context.close()
        self._context = self._session = None


def response_code(error: tss.TSS2_Exception) -> int:
    """The response code, without the number of the handle, parameter or session it is about."""
    return int(error.error) & 0xFFFF


def is_out_of_reach(error: tss.TSS2_Exception) -> bool:
    """Whether the TPM was not asked at all."""
    return error_layer(error) in (tss.TSS2_RC.TCTI_RC_LAYER, tss.TSS2_RC.RESMGR_RC_LAYER)


def error_layer(error: tss.TSS2_Exception) -> int:
    """Who says so, the TPM or the software on the way to it."""
    return int(error.rc) & int(tss.TSS2_RC.RC_LAYER_MASK)
