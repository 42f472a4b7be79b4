"""Half a minute of strangers on one device; make soak has them there for as long as wanted."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 300.0


def soak(*arguments: str, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run it. path: where Python looks for modules besides."""
    assert os.geteuid() == 0, "strangers are several users: run as root"
    return subprocess.run(
        [sys.executable, "-m", "soak", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{path}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_whatever_strangers_do_harms_nobody_but_themselves() -> None:
    done = soak("--minutes", "0.4", "--round", "12")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("soak: ok\n")
    print(done.stdout)


def test_no_system_call_with_any_argument_harms_anybody() -> None:
    done = soak("--minutes", "0.1", "--round", "3", "--only", "callers")
    assert done.returncode == 0, done.stdout + done.stderr
