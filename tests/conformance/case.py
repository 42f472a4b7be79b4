"""How a case is declared: a sentence, the one value that is to come out, and what goes in.

    @cases(
        case("HELO of its five octets is taken", 5, "6400000000"),
        case("HELO of four octets is refused", "EINVAL", "64000000"),
    )
    def test_write(system: System, octets: str) -> Value:
        with system.daemon() as daemon:
            return daemon.write(bytes.fromhex(octets))

The expectation is what the kernel does. Where the emulator differs, the case names the heading in
docs/deviations.md that admits it, and what the emulator does instead:

    case("the position is ignored", 0, deviation=("no-position", "ESPIPE"))
    case("SIGKILL ends a read", "gone", pyfuse3=("pyfuse3-interrupt", "blocks"))

``pyfuse3`` is for one that only this transport has. A deviation that is gone fails the case.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.conformance.system import System, Value

PYFUSE3_PREFIX = "pyfuse3-"
"""What the identifiers of that transport's own deviations begin with."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """identifier: a heading in docs/deviations.md; value: what comes out on the emulator."""

    identifier: str
    value: Value


@dataclass(frozen=True, slots=True)
class Case:
    """One row: what ``case`` was given."""

    name: str
    expected: Value
    arguments: tuple[Any, ...]
    deviation: Deviation | None
    pyfuse3: Deviation | None

    @property
    def deviations(self) -> tuple[Deviation, ...]:
        """Those that the case declares."""
        return tuple(each for each in (self.deviation, self.pyfuse3) if each is not None)

    def check(self, system: str, actual: Value) -> None:
        """Fail unless ``actual`` is what is to come out on the system of this name."""
        deviation = {
            "kernel": None,
            "channel": self.deviation,
            "pyfuse3": self.pyfuse3 or self.deviation,
        }[system]
        expected = self.expected if deviation is None else deviation.value
        if actual == expected:
            return
        if deviation is None:
            message = f"{actual!r}, and the kernel's is {expected!r}"
        elif actual == self.expected:
            message = f"{actual!r}, as the kernel: it deviates no longer ({deviation.identifier})"
        else:
            message = f"{actual!r}, and {deviation.identifier} is {expected!r}"
        pytest.fail(f"{self.name}: it is {message}", pytrace=False)


DECLARED: list[Case] = []
"""Every case of the modules that were imported."""


def case(
    name: str,
    expected: Value,
    *arguments: object,
    deviation: tuple[str, Value] | None = None,
    pyfuse3: tuple[str, Value] | None = None,
) -> Case:
    """Declare a case; ``arguments`` go to the function that it is for."""
    found = Case(
        name,
        expected,
        arguments,
        None if deviation is None else Deviation(*deviation),
        None if pyfuse3 is None else Deviation(*pyfuse3),
    )
    for each in found.deviations:
        assert each.value != expected, f"{name}: {each.identifier} is no deviation"
    if found.deviation is not None:
        assert not found.deviation.identifier.startswith(PYFUSE3_PREFIX), name
    DECLARED.append(found)
    return found


def cases(*several: Case) -> Callable[[Callable[..., Value]], Callable[[System, Case], None]]:
    """Make a test of a function that, given a system and a case's arguments, returns the value."""

    names = [each.name for each in several]
    assert len(set(names)) == len(names), "two cases have the same name"

    def decorate(function: Callable[..., Value]) -> Callable[[System, Case], None]:
        def test(system: System, case: Case) -> None:
            case.check(system.name, function(system, *case.arguments))

        # Not functools.wraps: pytest would look for the wrapped function's parameters.
        test.__name__, test.__qualname__ = function.__name__, function.__qualname__
        test.__module__, test.__doc__ = function.__module__, function.__doc__
        decorated: Callable[[System, Case], None] = pytest.mark.parametrize(
            "case", several, ids=names
        )(test)
        return decorated

    return decorate
