"""Which system the cases run against: ``--system=emulator``, on both transports, or ``kernel``."""

from collections.abc import Iterator

import pytest

from tests.conformance.system import System
from tests.conftest import let_everyone_in


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option, known where this folder is named on the command line."""
    parser.addoption(
        "--system",
        choices=["emulator", "kernel"],
        default="emulator",
        help="what the conformance cases run against; kernel: only inside tools/kernel-vm",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each case on every system that was chosen."""
    if "running_system" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--system", "emulator")
        names = ["kernel"] if chosen == "kernel" else ["channel", "pyfuse3"]
        metafunc.parametrize("running_system", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def running_system(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    """One system for all cases."""
    started: System
    if request.param == "kernel":
        from tests.conformance.kernel import KernelSystem

        started = KernelSystem()
    else:
        from tests.conformance.emulator import EmulatedSystem

        where = tmp_path_factory.mktemp("conformance")
        let_everyone_in(where)
        started = EmulatedSystem(request.param, where / "mount")
    yield started
    started.stop()


@pytest.fixture
def system(running_system: System) -> Iterator[System]:
    """The system, with nothing left of the case before."""
    yield running_system
    running_system.settle()
