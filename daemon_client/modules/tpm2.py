"""The key module tpm2: RSA keys that a TPM 2.0 decrypts with, and nobody else can.

A location is one of

    key.tss         a key file, "-----BEGIN TSS2 PRIVATE KEY-----": the key, encrypted by the TPM
    0x81010001      the persistent handle of a key that the TPM keeps

and may end in ?tcti=..., which says how to reach the TPM, in the words of tpm2-tools:
``key.tss?tcti=device:/dev/tpmrm0``. Without it TPM2TOOLS_TCTI in the environment says so; without
that the library looks for tabrmd, /dev/tpmrm0 and /dev/tpm0, in this order.

Key files are those of OpenSSL's TPM 2.0 providers and of tpm2_encodeobject. Whether they say that
a passphrase is needed does not count: tpm2_encodeobject says it the wrong way round (tpm2-tools,
issue 3458). The passphrase is the key's authorisation value. It is tried once, when the key is
opened, by decrypting something: a TPM counts wrong ones and locks itself. It does not count them
for keys made here (attribute noda), as for those of OpenSSL's providers; for others it may.
"""

import os
import re
from pathlib import Path

import tpm2_pytss as tss
from cryptography.hazmat.primitives.asymmetric import rsa
from tpm2_pytss.tsskey import TSSPrivKey

from daemon_client.key import KeyModule, KeyOpenError, KeyOperationError, WrongPassphraseError
from daemon_client.modules.openssl import write_new
from daemon_client.modules.rsa import RsaKey, oaep
from daemon_client.modules.tpm2_chip import (
    Chip,
    Loadable,
    error_layer,
    is_out_of_reach,
    response_code,
)
from daemon_client.secret import Secret

FILE_SIZE_MAX = 1 << 16
"""The most octets that a key file may have; a key of 4096 bits has 2100."""

PASSPHRASE_MAX = 64
"""The most octets of an authorisation value (TPM2B_AUTH: a digest of SHA-512)."""

_TCTI = "?tcti="
_BITS = range(1024, 1 << 16)
_HANDLE = re.compile("0[xX][0-9a-fA-F]+")
_PERSISTENT = range(0x8100_0000, 0x8200_0000)

_WRONG_AUTH = {tss.TPM2_RC.AUTH_FAIL, tss.TPM2_RC.BAD_AUTH}
_NOT_DECRYPTED = {tss.TPM2_RC.VALUE, tss.TPM2_RC.FAILURE}
"""What a TPM answers to a wrong ciphertext; the second one is libtpms's."""

_REASONS = {
    tss.TPM2_RC.LOCKOUT: "the TPM has locked itself after too many wrong passphrases, for a time; "
    "see tpm2_dictionarylockout",
    tss.TPM2_RC.INTEGRITY: "the key is another TPM's, or the TPM was cleared after it was made",
    tss.TPM2_RC.BAD_AUTH: "the TPM's owner hierarchy has a password, which is not supported: use "
    "a persistent handle",
    tss.TPM2_RC.HANDLE: "the TPM has no such handle",
    tss.TPM2_RC.OBJECT_MEMORY: "the TPM has no place for another key: use persistent handles, or a "
    "resource manager (?tcti=device:/dev/tpmrm0)",
}
"""Where the library's own words are of little help."""


class Tpm2Key(RsaKey):
    """An RSA key that is in a TPM."""

    def __init__(
        self, public_key: rsa.RSAPublicKey, chip: Chip, object_: Loadable, where: str
    ) -> None:
        super().__init__(public_key, chip.store, where)
        self._chip = chip
        self._object = object_

    def decrypt(self, ciphertext: bytes) -> bytes:
        """Decrypt what ``encrypt`` has made. Raises KeyOperationError."""
        if len(ciphertext) != (self.bits + 7) // 8:
            raise KeyOperationError("the ciphertext was not made with this key")
        try:
            return self._chip.decrypt(self._object, ciphertext)
        except tss.TSS2_Exception as error:
            reason = _reason(error)
            if response_code(error) in _NOT_DECRYPTED:
                reason = f"the ciphertext was not made with this key ({_name(error)})"
            if response_code(error) in _WRONG_AUTH:
                # It was right when the key was opened. Each further request would count as a try.
                self.close()
                reason = f"the passphrase is not right any more: open the key anew ({_name(error)})"
            raise KeyOperationError(f"the TPM does not decrypt: {reason}") from None

    def close(self) -> None:
        """Make its place in the TPM free, once nothing is under way."""
        self._chip.forget(self._object)


class Tpm2(KeyModule):
    """Key files and persistent handles."""

    alias = "tpm2"

    def open(self, location: str, passphrase: Secret | None) -> Tpm2Key:
        """Load a key and try whether it decrypts. Both the file and the TPM are needed for it."""
        path, chip = _place(location)
        origin = _handle(path) if _HANDLE.fullmatch(path) else _read(path)
        object_ = Loadable(origin, Secret(_octets(passphrase)))
        try:
            return Tpm2Key(_open(chip, object_, path), chip, object_, path)
        except BaseException:
            chip.forget(object_)
            raise

    def generate(self, location: str, passphrase: Secret | None, bits: int) -> None:
        """Have the TPM make a key; the new file is of use with this TPM only."""
        path, chip = _place(location)
        if _HANDLE.fullmatch(path):
            raise KeyOpenError("a new key is written to a file, not to a handle: name a path")
        password = _octets(passphrase)
        if bits not in _BITS:
            raise KeyOpenError(f"no TPM makes a key of {bits} bits")
        try:
            pem = chip.make(bits, password)
        except tss.TSS2_Exception as error:
            raise KeyOpenError(f"the TPM makes no key of {bits} bits: {_reason(error)}") from None
        write_new(path, pem)

    def absolute(self, location: str, base: Path) -> str:
        """A relative path is one below ``base``; a handle is the same everywhere."""
        path, mark, tcti = location.partition(_TCTI)
        if _HANDLE.fullmatch(path):
            return location
        return f"{base / os.path.expanduser(path)}{mark}{tcti}"


_chips: dict[str | None, Chip] = {}


def _place(location: str) -> tuple[str, Chip]:
    """A path or handle, and the TPM."""
    path, mark, tcti = location.partition(_TCTI)
    if mark and not tcti:
        raise KeyOpenError(f"{location} does not say which TCTI, such as device:/dev/tpmrm0")
    known = tcti or os.environ.get("TPM2TOOLS_TCTI") or None
    return path, _chips.setdefault(known, Chip(known))


def _octets(passphrase: Secret | None) -> bytes:
    octets = bytes(passphrase.octets) if passphrase is not None else b""
    if len(octets) > PASSPHRASE_MAX:
        raise WrongPassphraseError(f"a TPM key's passphrase has at most {PASSPHRASE_MAX} octets")
    return octets


def _handle(text: str) -> int:
    handle = int(text, 16)
    if handle not in _PERSISTENT:
        raise KeyOpenError(f"{text} is no persistent handle, which are 0x81000000 to 0x81ffffff")
    return handle


def _read(name: str) -> TSSPrivKey:
    try:
        with open(name, "rb") as file:
            content = file.read(FILE_SIZE_MAX + 1)
    except OSError as error:
        raise KeyOpenError(f"cannot read {name}: {error.strerror}") from None
    if len(content) > FILE_SIZE_MAX:
        raise KeyOpenError(f"{name} is too long to be a key")
    try:
        key = TSSPrivKey.from_pem(content)
        key.parent.to_bytes(4)  # a handle is 32 bits, which from_pem does not look at
        return key
    except (ValueError, TypeError, OverflowError, tss.TSS2_Exception):
        raise KeyOpenError(
            f"{name} holds no key of a TPM, which starts with '-----BEGIN TSS2 PRIVATE KEY-----'"
        ) from None


def _open(chip: Chip, object_: Loadable, name: str) -> rsa.RSAPublicKey:
    """Load a key and decrypt something with it; its public key. Raises KeyOpenError."""
    try:
        public_key = _public_key(chip.public(object_), name)
    except tss.TSS2_Exception as error:
        raise KeyOpenError(f"cannot load the key {name}: {_reason(error)}") from None
    try:
        chip.decrypt(object_, public_key.encrypt(b"", oaep()))
    except tss.TSS2_Exception as error:
        if response_code(error) not in _WRONG_AUTH:
            raise KeyOpenError(f"the key {name} does not decrypt: {_reason(error)}") from None
        what = "the passphrase is wrong" if object_.passphrase.octets else "a passphrase is needed"
        raise WrongPassphraseError(f"for the key {name} {what} ({_name(error)})") from None
    return public_key


def _public_key(public: tss.TPM2B_PUBLIC, name: str) -> rsa.RSAPublicKey:
    """Raises KeyOpenError for a key that cannot do what we want of it."""
    area = public.publicArea
    attributes, details = area.objectAttributes, area.parameters.rsaDetail
    # A key with OAEP and SHA-1 for its scheme would decrypt, but not the salt of our session.
    has_scheme = details.scheme.scheme != tss.TPM2_ALG.NULL
    for is_wrong, what in (
        (area.type != tss.TPM2_ALG.RSA, "is not RSA"),
        (not attributes & tss.TPMA_OBJECT.DECRYPT, "is not for decryption (attribute decrypt)"),
        (attributes & tss.TPMA_OBJECT.RESTRICTED, "is for other keys only (attribute restricted)"),
        (not attributes & tss.TPMA_OBJECT.USERWITHAUTH, "needs a policy, not just a passphrase"),
        (has_scheme, "has a scheme of its own (it must be null)"),
    ):
        if is_wrong:
            raise KeyOpenError(f"the key {name} cannot be used: it {what}")
    modulus = int.from_bytes(bytes(area.unique.rsa), "big")
    # 0 is the default exponent (TPM 2.0 library, part 2, TPMS_RSA_PARMS).
    return rsa.RSAPublicNumbers(details.exponent or 65537, modulus).public_key()


def _reason(error: tss.TSS2_Exception) -> str:
    """Why something failed: a sentence, and the response code's name."""
    if is_out_of_reach(error):
        return (
            f"the TPM cannot be reached ({_name(error)}): is it there, may this user use it, and "
            f"what do {_TCTI} and TPM2TOOLS_TCTI say?"
        )
    return f"{_REASONS.get(response_code(error), error)} ({_name(error)})"


def _name(error: tss.TSS2_Exception) -> str:
    try:
        if error_layer(error) in (tss.TSS2_RC.TPM_RC_LAYER, tss.TSS2_RC.RESMGR_TPM_RC_LAYER):
            return str(tss.TPM2_RC.to_string(response_code(error)))
        return str(tss.TSS2_RC.to_string(error.rc))
    except ValueError:
        return hex(error.rc)
