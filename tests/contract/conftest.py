"""Every provider in turn, in the sandbox."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from providers.sandbox.server import Sandbox
from tests.contract.case import Case
from tests.contract.drivers import DRIVERS, Driver


@pytest.fixture(params=DRIVERS, ids=lambda driver: driver.name)
def driver(request: pytest.FixtureRequest) -> Driver:
    """Every provider in turn."""
    found: Driver = request.param
    return found


@pytest.fixture
def case(driver: Driver, sandbox: Sandbox) -> Iterator[Case]:
    """The provider, all well."""
    provider = driver.connect(sandbox, driver.good_key, 8)
    yield Case(driver, provider, sandbox)
    provider.close()
