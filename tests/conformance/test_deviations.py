"""docs/deviations.md and the cases agree: each heading is some case's, and the other way round."""

import importlib
import re
from pathlib import Path

from tests.conformance.case import DECLARED

_DOCUMENT = Path(__file__).parents[2] / "docs" / "deviations.md"

NOT_CASES = {
    "a-path-for-each-user": "no case asks for the path of what it has opened",
    "files-per-user": "it takes a thousand user namespaces",
    "fork-while-reading": "it depends on the machine's kernel, and loses a message at random",
    "requester-gone": "a killed requester of the kernel's spins: nothing that a daemon sees",
    "reused-context": "the kernel's fault corrupts its memory",
    "parameters-shown": "the kernel shows nothing to compare with",
    "shutdown": "the kernel's module does not end while it is used",
    "pyfuse3-page-cache": "it would hang the system that all cases share",
    "pyfuse3-tasks": "99 blocked reads would stop the system that all cases share",
}
"""The headings that no case can show, and why."""


def _headings() -> list[str]:
    return re.findall(r"^### (\S+)$", _DOCUMENT.read_text(), re.MULTILINE)


def _used() -> set[str]:
    for path in Path(__file__).parent.glob("test_*.py"):
        importlib.import_module(f"{__package__}.{path.stem}")
    return {deviation.identifier for case in DECLARED for deviation in case.deviations}


def test_every_deviation_of_a_case_is_documented() -> None:
    assert _used() <= set(_headings())


def test_every_documented_deviation_is_some_cases() -> None:
    assert set(_headings()) == _used() | set(NOT_CASES)


def test_what_is_no_case_is_none() -> None:
    assert not _used() & set(NOT_CASES)
