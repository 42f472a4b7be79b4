"""How the tests run the soak."""

import os
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parent.parent.parent
_PATIENCE = 300.0


def soak(*arguments: str, path: Path = _ROOT) -> subprocess.CompletedProcess[str]:
    """Run it. path: where Python looks for modules besides."""
    assert os.geteuid() == 0, "strangers are several users: run as root"
    return subprocess.run(
        [sys.executable, "-m", "soak", *arguments],
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": f"{path}:{_ROOT}"},
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
