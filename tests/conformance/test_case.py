"""What a case accepts on which system, and what it does not."""

import pytest

from tests.conformance.case import Case, Deviation

PLAIN = Case("plain", 5, (), None, None)
DEVIATING = Case("deviating", 5, (), Deviation("some-heading", "EINVAL"), None)
ON_PYFUSE3 = Case("on pyfuse3", 5, (), None, Deviation("pyfuse3-heading", "blocks"))


@pytest.mark.parametrize(
    ("case", "system", "value"),
    [
        (PLAIN, "kernel", 5),
        (PLAIN, "channel", 5),
        (PLAIN, "pyfuse3", 5),
        (DEVIATING, "kernel", 5),
        (DEVIATING, "channel", "EINVAL"),
        (DEVIATING, "pyfuse3", "EINVAL"),
        (ON_PYFUSE3, "kernel", 5),
        (ON_PYFUSE3, "channel", 5),
        (ON_PYFUSE3, "pyfuse3", "blocks"),
    ],
)
def test_one_value_passes_on_each_system(case: Case, system: str, value: object) -> None:
    case.check(system, value)
    with pytest.raises(pytest.fail.Exception):
        case.check(system, "EBADF")


@pytest.mark.parametrize(
    ("case", "system"), [(DEVIATING, "channel"), (DEVIATING, "pyfuse3"), (ON_PYFUSE3, "pyfuse3")]
)
def test_a_deviation_that_is_gone_fails(case: Case, system: str) -> None:
    with pytest.raises(pytest.fail.Exception, match="deviates no longer"):
        case.check(system, 5)


def test_the_kernel_is_allowed_no_deviation() -> None:
    with pytest.raises(pytest.fail.Exception, match="the kernel's is 5"):
        DEVIATING.check("kernel", "EINVAL")
