"""docs/security.md names the tests that hold its promises: all of them exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NAMED = re.findall(r"`(tests/[\w/.:]+)`", (ROOT / "docs" / "security.md").read_text())


@pytest.mark.parametrize("named", NAMED)
def test_each_test_that_holds_a_promise_exists(named: str) -> None:
    path, _, function = named.partition("::")
    assert (ROOT / path).exists()
    assert not function or f"def {function}(" in (ROOT / path).read_text()
