"""PKCS#11 tokens in software, SoftHSM 2: what the key module pkcs11 needs.

    with SoftHsm() as hsm:
        hsm.make_token("mine")
        hsm.import_key(Path("key.pem"), "mine", label="files", key_id="01")
        subprocess.run([...], env={**os.environ, **hsm.environment})

A process learns once where the tokens are, and which there are: when it first loads the library. So
tests that load it themselves share one directory and its tokens: ``in_this_process()``.
"""

import atexit
import functools
import os
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote

from tests.client import PATIENCE
from tests.closing import Closing

LIBRARY = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "a PIN"
TOKENS = ("first", "second", "twins", "twins")
"""The tokens that there are in this process."""


class SoftHsm(Closing):
    """Tokens, and the configuration by which they are found, in a temporary directory.

    environment: what a program needs in its environment to find them.
    """

    def __init__(self) -> None:
        assert os.path.exists(LIBRARY), "run make setup, or install the Debian package softhsm2"
        self._made = tempfile.TemporaryDirectory(prefix="softhsm-")
        self.directory = Path(self._made.name)
        tokens = self.directory / "tokens"
        tokens.mkdir()
        configuration = self.directory / "softhsm2.conf"
        configuration.write_text(f"directories.tokendir = {tokens}\nlog.level = ERROR\n")
        self.environment = {"SOFTHSM2_CONF": str(configuration)}

    def make_token(self, label: str, pin: str = PIN) -> None:
        """Make an empty token."""
        self.run(
            *("softhsm2-util", "--init-token", "--free", "--label", label),
            *("--pin", pin, "--so-pin", "its officer"),
        )

    def import_key(self, pem: Path, token: str, label: str, key_id: str, pin: str = PIN) -> None:
        """Give a token a key pair: PKCS#8 in PEM, not encrypted. key_id: hexadecimal digits."""
        self.run(
            *("softhsm2-util", "--import", str(pem), "--token", token),
            *("--label", label, "--id", key_id, "--pin", pin),
        )

    def tool(self, token: str, *arguments: str, pin: str = PIN) -> str:
        """Run OpenSC's pkcs11-tool, logged in to a token; what it says."""
        return self.run(
            *("pkcs11-tool", "--module", LIBRARY, "--token-label", token),
            *("--login", "--pin", pin, *arguments),
        )

    def run(self, *command: str) -> str:
        """Run a program that has to succeed; what it says."""
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **self.environment},
            timeout=PATIENCE,
            text=True,
        )
        assert done.returncode == 0, f"{command[0]} failed: {done.stdout}"
        return done.stdout

    def close(self) -> None:
        """Remove the tokens."""
        self._made.cleanup()


@functools.cache
def in_this_process() -> SoftHsm:
    """The tokens of all tests that load the library into the test run's own process."""
    hsm = SoftHsm()
    atexit.register(hsm.close)
    for label in TOKENS:
        hsm.make_token(label)
    os.environ.update(hsm.environment)
    return hsm


def location(library: str | Path | None = LIBRARY, **attributes: str) -> str:
    """A PKCS#11 URI; pin_source goes into the query, the others into the path."""
    pin_source = attributes.pop("pin_source", None)
    path = ";".join(f"{name}={quote(value, safe='%')}" for name, value in attributes.items())
    query = [f"module-path={library}"] if library else []
    query += [f"pin-source={pin_source}"] if pin_source else []
    return f"pkcs11:{path}?{'&'.join(query)}".rstrip("?")
