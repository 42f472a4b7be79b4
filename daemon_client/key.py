"""What a key and a key module are: all that this daemon wants to know of any of them.

A *key* encrypts and decrypts. A *key module* opens keys of one kind of key store. A key's
*location* says where in the store it is, in one line of text that means something to the module: a
file's path, a PKCS#11 URI, a handle in a TPM.

Key modules are found by name among the entry points of the group ``ecryptfs_keyd.key_modules``, so
any installed package can bring one:

    [project.entry-points."ecryptfs_keyd.key_modules"]
    mykms = "my_package.module:MyKms"

where MyKms is a subclass of KeyModule. The name is what a token's key_mod_alias says.
"""

from abc import ABC, abstractmethod
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import ClassVar

from daemon_client.secret import Secret

GROUP = "ecryptfs_keyd.key_modules"


class KeyOpenError(Exception):
    """A key cannot be opened, or not be made; the message says why and what to do."""


class WrongPassphraseError(KeyOpenError):
    """The passphrase is not the key's, or is missing.

    A class of its own because trying again is not harmless: tokens and TPMs lock themselves.
    """


class KeyOperationError(Exception):
    """The key cannot encrypt or decrypt these octets. The message tells nothing of them."""


class Key(ABC):
    """An open key. Its methods may block, and may be called by several threads at a time.

    signature: 16 lower case hexadecimal digits, by which eCryptfs asks for the key.
    store: names the key store that the key is in. Requests for keys of one store take turns with
    each other only, so that a slow store holds up nobody else's. Keys that name none share one.
    """

    signature: str
    store: str = ""

    @abstractmethod
    def encrypt(self, payload: bytes) -> bytes:
        """The encrypted key of a payload. Raises KeyOperationError."""

    @abstractmethod
    def decrypt(self, ciphertext: bytes) -> bytes:
        """The payload of an encrypted key. Raises KeyOperationError."""

    @abstractmethod
    def describe(self) -> str:
        """One line for people: what kind of key, where it is. Nothing secret."""

    def close(self) -> None:  # noqa: B027  # most keys hold nothing
        """Give back what the key holds. Calls that are under way may fail; later ones do."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.signature}: {self.describe()})"


class KeyModule(ABC):
    """Opens keys of one kind.

    alias: its name: 1 to 16 ASCII characters, the same as that of its entry point.
    has_uris: whether its locations are URIs that begin with its name and a colon.
    """

    alias: ClassVar[str]
    has_uris: ClassVar[bool] = False

    @abstractmethod
    def open(self, location: str, passphrase: Secret | None) -> Key:
        """Open a key. Raises KeyOpenError; WrongPassphraseError where it is for the passphrase.

        The passphrase is the caller's, who may wipe it afterwards: copy it if it is needed later.
        """

    def generate(self, location: str, passphrase: Secret | None, bits: int) -> None:
        """Make a new key there; nothing that exists is overwritten. Raises KeyOpenError."""
        raise KeyOpenError(f"the key module {self.alias} cannot make keys")

    def absolute(self, location: str, base: Path) -> str:
        """The location, independent of the working directory; ``base`` is where it was written."""
        return location

    def build_blob(self, location: str, passphrase: Secret | None) -> bytes:
        """What a token in the keyring carries, to open the key by. Raises KeyOpenError.

            u16le length | location, NUL | u16le length | passphrase, NUL

        The lengths count the NULs; without a passphrase it is empty. This is how ecryptfsd's
        openssl module has it (ecryptfs_key_mod_openssl.c, ecryptfs_openssl_serialize).
        """
        parts = location.encode(), bytes(passphrase.octets) if passphrase else b""
        if any(len(part) >= 0xFFFF or b"\0" in part for part in parts):
            raise KeyOpenError("location and passphrase have to be short, and free of NULs")
        return b"".join((len(part) + 1).to_bytes(2, "little") + part + b"\0" for part in parts)

    def read_blob(self, blob: bytes) -> tuple[str, Secret | None]:
        """The location and the passphrase in what ``build_blob`` made. Raises KeyOpenError."""
        location, rest = _counted(blob)
        passphrase, _ = _counted(rest)
        try:
            return location.decode(), Secret(passphrase) if passphrase else None
        except UnicodeDecodeError:
            raise KeyOpenError("the token's location is not UTF-8") from None


def _counted(octets: bytes) -> tuple[bytes, bytes]:
    """A text with its length before it and a NUL behind it; and what follows."""
    end = 2 + int.from_bytes(octets[:2], "little")
    text = octets[2:end]
    if len(octets) < end or text[-1:] != b"\0":
        raise KeyOpenError("the token's blob is not what its key module writes")
    return text[:-1].split(b"\0")[0], octets[end:]


def open_key(
    module: KeyModule, location: str, passphrase: Secret | None, signature: str | None
) -> Key:
    """Have a key module open a key; whatever the module does, only KeyOpenError is raised.

    signature: by which the key is known, where it is; with another one it is refused, since files
    would be encrypted with another key than their headers say.
    """
    try:
        key = module.open(location, passphrase)
        if signature in (None, key.signature):
            return key
        key.close()
        why = f"the signature is {key.signature}, not {signature!r} as expected: {key.describe()}"
    except KeyOpenError:
        raise
    except Exception as error:
        # Its message might tell of the passphrase.
        why = f"the key module {module.alias} failed with {type(error).__name__}: {location}"
    raise KeyOpenError(why)


@cache
def key_module(alias: str) -> KeyModule:
    """The key module of that name. Raises KeyOpenError where there is none, or it cannot start."""
    found = list(entry_points(group=GROUP, name=alias))
    if not found:
        names = ", ".join(sorted(key_module_names()))
        raise KeyOpenError(f"there is no key module {alias!r}; there are: {names}")
    try:
        module: KeyModule = found[0].load()()
    except ImportError as error:
        raise KeyOpenError(
            f"the key module {alias} needs {error.name or error}: "
            f"pip install 'ecryptfs-cuse[{alias}]', or what its package says"
        ) from None
    except Exception as error:
        # Another package's code, in which anything may be wrong.
        raise KeyOpenError(
            f"the key module {alias} cannot start: {type(error).__name__}: {error}"
        ) from None
    return module


def key_module_names() -> set[str]:
    """The names of all key modules that are installed."""
    return {each.name for each in entry_points(group=GROUP)}
