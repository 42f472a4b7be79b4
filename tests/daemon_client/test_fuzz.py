"""The fuzzer for a moment: what it checks holds, and it finds what does not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client import PATIENCE

ROOT = Path(__file__).parent.parent.parent
FOUND = 77  # libFuzzer's exit code for a fault (-error_exitcode)


def fuzz(directory: Path, *options: str, fault: str = "") -> subprocess.CompletedProcess[str]:
    """Run it with a directory for what it keeps. fault: statements that change what is fuzzed."""
    # After the import, which prepares the modules for the fuzzer.
    program = f"import fuzz.__main__ as fuzz; {fault or 'pass'}; fuzz.main()"
    return subprocess.run(
        [sys.executable, "-c", program, *options],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
        check=False,
    )


def test_no_octets_are_found_that_break_a_rule(tmp_path: Path) -> None:
    done = fuzz(tmp_path, "-runs=8000", "-seed=1")
    assert done.returncode == 0, done.stderr
    assert "Done 8000 runs" in done.stderr
    assert [path.name for path in (tmp_path / "build" / "fuzz").iterdir()] == ["corpus"]


@pytest.mark.parametrize(
    "fault",
    [
        "import daemon_client.protocol as protocol; protocol.ENCRYPTED_KEY_MAX = 600",
        "import daemon_client.protocol as protocol; protocol.MESSAGE_HEADER_SIZE = 4",
        "import ecryptfs_cuse.wire.auth_token as token; token._BLOB_OFFSET = 669",
        "import daemon_client.key as key; key._counted = lambda octets: (octets[2:-1], octets[:3])",
        "from ecryptfs_cuse.fuse.channel import Channel; Channel._interrupt_read = print",
    ],
    ids=["perform", "receive", "token", "blob", "channel"],
)
def test_a_planted_fault_is_found_and_its_octets_are_kept(tmp_path: Path, fault: str) -> None:
    done = fuzz(tmp_path, "-runs=200000", "-seed=1", fault=fault)
    assert done.returncode == FOUND, done.stderr
    (kept,) = (tmp_path / "build" / "fuzz").glob("crash-*")
    assert fuzz(tmp_path, str(kept), fault=fault).returncode == FOUND
    assert fuzz(tmp_path, str(kept)).returncode == 0
