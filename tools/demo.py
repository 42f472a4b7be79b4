"""The main job, shown: key daemons on the device, requests raised, answers checked.

Run by ``make demo``. First the reference daemon wraps and unwraps a hundred file keys. Then the
real ecryptfsd opens the device at its own path, /dev/ecryptfs, in a private mount namespace with a
/dev of its own, so that nothing on this machine changes; that part needs root, and asks sudo.
"""

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ecryptfs_cuse.core.keystore import decrypted_key, encrypted_key
from ecryptfs_cuse.wire.ciphers import cipher_code
from ecryptfs_cuse.wire.tags import FileKey, Tag64, Tag66, build_file_key, build_request

KEYS = 100
PATIENCE = 10.0
UNKNOWN_SIGNATURE = "0123456789abcdef"
BIN = Path(sys.executable).parent

OWN_DEV = """
mount -t tmpfs -o mode=0755 tmpfs /sys/fs
mkdir /sys/fs/ecryptfs /sys/fs/dev
for name in null zero random urandom tty fuse; do
    touch /sys/fs/dev/$name
    mount --bind /dev/$name /sys/fs/dev/$name
done
mount --rbind /sys/fs/dev /dev
"""
"""What makes room, in a private mount namespace, for /dev/ecryptfs and /sys/fs/ecryptfs."""


class DemoError(Exception):
    """Something is not as it should be."""


class Program:
    """A program that runs beside the demo; what it says is shown, and can be waited for."""

    def __init__(self, name: str, *command: str) -> None:
        self._name = name
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def wait_for(self, text: str) -> None:
        """Wait for a line with ``text`` in it. Raises DemoError."""
        with self._news:
            if not self._news.wait_for(lambda: any(text in line for line in self._lines), PATIENCE):
                raise DemoError(f"{self._name} did not say {text!r}")

    def stop(self) -> None:
        """Stop it by SIGTERM; it has to end with exit status 0. Raises DemoError."""
        self._process.terminate()
        status = self._process.wait(PATIENCE)
        self._listener.join()
        if status != 0:
            raise DemoError(f"{self._name} ended with status {status}")

    def kill(self) -> None:
        """End it at any rate."""
        self._process.kill()
        self._process.wait()
        self._listener.join()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            sys.stdout.write(f"  {line.rstrip()}\n")  # print would write the end of line apart
            sys.stdout.flush()
            with self._news:
                self._lines.append(line)
                self._news.notify_all()


@contextmanager
def running(name: str, *command: str) -> Iterator[Program]:
    """A program for the time of a block. Raises DemoError where it does not end well."""
    program = Program(name, *command)
    try:
        yield program
        program.stop()
    except BaseException:
        program.kill()
        raise


def say(text: str) -> None:
    """Tell what is being done."""
    print(f"demo: {text}", flush=True)


def exchange(mountpoint: Path, packet: bytes) -> bytes:
    """Raise a request as this user; the answer."""
    descriptor = os.open(mountpoint / "control" / "request", os.O_RDWR)
    try:
        os.write(descriptor, packet)
        return os.read(descriptor, 8192)
    finally:
        os.close(descriptor)


def reference_daemon(directory: Path) -> None:
    """ecryptfs-keyd with a fresh RSA key wraps and unwraps file keys."""
    mountpoint = directory / "reference"
    mountpoint.mkdir()
    # Not this user's own keys.
    os.environ["XDG_CONFIG_HOME"] = str(directory)
    keyd = str(BIN / "ecryptfs-keyd")
    signature = subprocess.run(
        [keyd, "key", "generate", str(directory / "key.pem")],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    ).stdout.strip()
    device = str(mountpoint / "dev" / "ecryptfs")
    say(f"the device at {mountpoint}")
    with running("device", str(BIN / "ecryptfs-cuse"), "mount", str(mountpoint), "-v") as server:
        server.wait_for("ready: ")
        say(f"the reference daemon, ecryptfs-keyd, with a fresh RSA key of signature {signature}")
        with running("ecryptfs-keyd", keyd, "--device", device) as daemon:
            daemon.wait_for("ready: ")
            say(f"wrapping and unwrapping {KEYS} file keys through it")
            for number in range(KEYS):
                key = os.urandom((16, 24, 32)[number % 3])
                payload = build_file_key(FileKey(cipher_code("aes", len(key)), key))
                wrapped = encrypted_key(
                    exchange(mountpoint, build_request(Tag66(signature, payload)))
                )
                unwrapped = decrypted_key(
                    exchange(mountpoint, build_request(Tag64(signature, wrapped)))
                )
                if unwrapped.key != key:
                    raise DemoError(f"file key {number} came back as another one")


def real_daemon(directory: Path) -> None:
    """The real ecryptfsd, in this process's own mount namespace."""
    mountpoint = directory / "real"
    mountpoint.mkdir()
    subprocess.run(["sh", "-ec", OWN_DEV], check=True)
    say(f"the device at {mountpoint}, and in a private mount namespace at /dev/ecryptfs too")
    command = (str(BIN / "ecryptfs-cuse"), "mount", str(mountpoint), "-v", "--bind")
    with running("device", *command, "/dev/ecryptfs") as server:
        server.wait_for("ready: ")
        # ecryptfsd asks /sys/fs/ecryptfs/version, which only the kernel's own module would show.
        version = str(mountpoint / "sys" / "fs" / "ecryptfs")
        subprocess.run(["mount", "--bind", version, "/sys/fs/ecryptfs"], check=True)
        say("the real ecryptfsd")
        with running("ecryptfsd", "ecryptfsd", "-f") as daemon:
            server.wait_for("HELO")
            for request, expected in (
                (Tag66(UNKNOWN_SIGNATURE, build_file_key(FileKey(7, bytes(16)))), "43ff"),
                (Tag64(UNKNOWN_SIGNATURE, bytes(256)), "41ff"),
            ):
                answer = exchange(mountpoint, build_request(request)).hex()
                say(f"a tag {request.TAG} request for a key it does not have: it answers {answer}")
                if answer != expected:
                    raise DemoError(f"ecryptfsd answered {answer} instead of {expected}")
            say("SIGTERM to ecryptfsd")
            daemon.stop()
            server.wait_for("QUIT")


def main() -> int:
    """Run both parts; the second in a mount namespace of its own."""
    with tempfile.TemporaryDirectory(prefix="ecryptfs-demo-") as name:
        directory = Path(name)
        try:
            if sys.argv[1:] == ["real"]:
                real_daemon(directory)
                return 0
            reference_daemon(directory)
            sudo = [] if os.geteuid() == 0 else ["sudo"]
            part = [sys.executable, "-m", "tools.demo", "real"]
            namespace = ["unshare", "--mount", "--propagation", "private", "--"]
            if subprocess.run([*sudo, *namespace, *part], check=False).returncode != 0:
                raise DemoError("the part with the real ecryptfsd went wrong")
        except (DemoError, OSError, subprocess.SubprocessError) as error:
            say(f"failed: {error}")
            return 1
    say(
        f"ok: {KEYS} file keys wrapped and {KEYS} unwrapped by ecryptfs-keyd; "
        "the real ecryptfsd: 1 HELO, 2 answers, 1 QUIT"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
