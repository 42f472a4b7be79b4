"""A device for each test, and Hypothesis without a stop watch: a busy machine fails no test."""

import pytest
from hypothesis import HealthCheck, settings

from tests.core.emulation import Device

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture
def device() -> Device:
    return Device()
