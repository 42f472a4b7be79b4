"""A device for each test."""

import pytest

from tests.core.emulation import Device


@pytest.fixture
def device() -> Device:
    return Device()
