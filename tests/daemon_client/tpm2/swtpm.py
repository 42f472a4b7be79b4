"""A TPM 2.0 in software, and tpm2-tools that use it: what the key module tpm2 needs.

    with SoftwareTpm2() as chip:
        path = chip.import_key(Path("key.pem"), "mine", "-p", "passphrase")
        key = Tpm2().open(f"{path}?tcti={chip.tcti}", Secret(b"passphrase"))

It has no resource manager: three places for keys, and three for sessions.
"""

import os
import socket
import tempfile
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

from tests.closing import Closing
from tests.ecryptfsd.programs import require
from tests.ecryptfsd.tpm import run_program, start_program


class SoftwareTpm2(Closing):
    """A running TPM; its state and its sockets are in ``directory``, a temporary one.

    tcti: how it is reached, for tpm2-tools and for the key module. pid: its process.
    """

    def __init__(self) -> None:
        require("swtpm", "setpriv", "tpm2_import")
        with ExitStack() as made:
            self.directory = Path(made.enter_context(tempfile.TemporaryDirectory(prefix="swtpm-")))
            self._socket = self.directory / "chip"
            self.tcti = f"swtpm:path={self._socket}"
            self._running = ExitStack()
            self.start()
            self._made = made.pop_all()

    def start(self) -> None:
        """Start it with the state that it had, as a computer that was switched on does."""
        with ExitStack() as listening:
            # The library puts ".ctrl" behind the path for the second socket.
            data, control = (
                self._listen(listening, Path(f"{self._socket}{ending}")) for ending in ("", ".ctrl")
            )
            process = start_program(
                self._running,
                *("swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.directory}"),
                *("--server", f"type=unixio,fd={data}", "--ctrl", f"type=unixio,fd={control}"),
                *("--flags", "not-need-init,startup-clear"),
                # Otherwise it says each command's end to a pipe that nobody reads.
                *("--log", f"file={self.directory / 'log'}"),
                pass_fds=(data, control),
            )
        self.pid = process.pid

    def stop(self) -> None:
        """End it; its state is kept, but not what was loaded into it."""
        self._running.close()

    def run(self, *command: str | Path) -> str:
        """Run one of tpm2-tools, which has to succeed; what it says.

        Afterwards nothing is loaded into the TPM, not even what others had loaded.
        """
        environment = {"TPM2TOOLS_TCTI": self.tcti}
        said = run_program(*map(str, command), environment=environment)
        # They leave what they load in its place, for a resource manager to clear up.
        run_program("tpm2_flushcontext", "--transient-object", environment=environment)
        run_program("tpm2_flushcontext", "--loaded-session", environment=environment)
        return said

    def import_key(self, pem: Path, name: str, *options: str) -> Path:
        """Give it a private key that was made elsewhere: the key file NAME.tss, and NAME.ctx.

        Options are those of tpm2_import, such as "-p", "passphrase".
        """
        public, private = self._path(name, "pub"), self._path(name, "priv")
        files = ("-u", public, "-r", private)
        self.run("tpm2_import", "-C", self.parent, "-G", "rsa", "-i", pem, *files, *options)
        return self._key_file(name, public, private)

    def create_key(self, name: str, *options: str | Path) -> Path:
        """Have it make a key, with options of tpm2_create: the key file NAME.tss, and NAME.ctx."""
        public, private = self._path(name, "pub"), self._path(name, "priv")
        self.run("tpm2_create", "-C", self.parent, "-u", public, "-r", private, *options)
        return self._key_file(name, public, private)

    def keep(self, name: str, handle: str) -> None:
        """Give the key NAME a persistent handle; one that had it before has it no more."""
        if handle in self.run("tpm2_getcap", "handles-persistent"):
            self.run("tpm2_evictcontrol", "-C", "o", "-c", handle)
        self.run("tpm2_evictcontrol", "-C", "o", "-c", self._path(name, "ctx"), handle)

    @cached_property
    def parent(self) -> Path:
        """The context of the primary key that key files have as their parent.

        Source: ASN.1 Specification for TPM 2.0 Key Files, section 3.1.8 (parent).
        """
        path = self._path("parent", "ctx")
        attributes = "userwithauth|restricted|decrypt|noda|fixedtpm|fixedparent|sensitivedataorigin"
        self.run("tpm2_createprimary", "-C", "o", "-G", "ecc", "-a", attributes, "-c", path)
        return path

    def close(self) -> None:
        """End it, and remove its files."""
        self.stop()
        self._made.close()

    def _path(self, name: str, ending: str) -> Path:
        return self.directory / f"{name}.{ending}"

    def _key_file(self, name: str, public: Path, private: Path) -> Path:
        files = ("-C", self.parent, "-u", public, "-r", private)
        path = self._path(name, "tss")
        self.run("tpm2_load", *files, "-c", self._path(name, "ctx"))
        self.run("tpm2_encodeobject", *files, "-o", path)
        return path

    @staticmethod
    def _listen(listening: ExitStack, path: Path) -> int:
        # The sockets listen before it runs: nobody has to wait for it.
        path.unlink(missing_ok=True)
        listener = listening.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(os.fspath(path))
        listener.listen()
        return listener.fileno()
