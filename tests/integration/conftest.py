"""Both databases, and a whole router over each."""

from __future__ import annotations

import contextlib
import functools
import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from flask_openapi3 import utils
from pydantic import BaseModel
from werkzeug.test import TestResponse

from providers.sandbox.server import Sandbox
from router.ledger.engine import Database
from tests.fakes.launchdarkly import FakeLaunchDarkly
from tests.integration.flip_house import FlipHouse, all_flags, open_house
from tests.integration.ledgers import BACKENDS, ledger_on
from tests.integration.postgres import Databases, databases
from tests.integration.shop import LOG, Shop, open_shop
from tests.integration.till import SETTINGS, Till, till_shop

OpenShop = Callable[..., Shop]


@pytest.fixture(scope="session", autouse=True)
def _schemas_once() -> Iterator[None]:
    """Each model's schema is made once in a test process, not by each of a thousand routers: half of their start."""
    make = utils.get_model_schema

    @functools.cache
    def made(model: type[BaseModel], mode: Any) -> bytes:
        return pickle.dumps(make(model, mode))

    def get(model: type[BaseModel], mode: Any = "validation") -> dict[str, Any]:
        schema: dict[str, Any] = pickle.loads(made(model, mode))
        return schema

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "get_model_schema", get)
        # Which pages of documentation are installed is looked for in every package there is, by each router.
        patch.setattr("flask_openapi3.openapi.entry_points", functools.cache(entry_points))
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[Databases]:
    """One PostgreSQL for this test process."""
    with databases() as found:
        yield found


@pytest.fixture(params=BACKENDS)
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database with this version's tables and no row, once of each kind."""
    with ledger_on(request.param, request, tmp_path) as url:
        yield url


@pytest.fixture(params=BACKENDS)
def bare_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without a table, once of each kind."""
    with ledger_on(request.param, request, tmp_path, prepare=None) as url:
        yield url


@pytest.fixture
def database(ledger_url: str) -> Iterator[Database]:
    """Connections to that ledger, for several threads."""
    database = Database(ledger_url, pool_size=10)
    yield database
    database.close()


@pytest.fixture
def shops(ledger_url: str, sandbox: Sandbox, tmp_path: Path) -> Iterator[OpenShop]:
    """Opens routers over this test's ledger (`open_shop`), as many as it wants."""
    with contextlib.ExitStack() as stack:

        def make(**settings: Any) -> Shop:
            return stack.enter_context(open_shop(ledger_url, sandbox, tmp_path, **settings))

        yield make


@pytest.fixture
def shop(shops: OpenShop) -> Shop:
    """A router with usual settings, once over each kind of ledger."""
    return shops()


@pytest.fixture(scope="module", params=BACKENDS)
def standing_shop(
    request: pytest.FixtureRequest, sandbox_process: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    """One router for a whole module of requests that must leave no trace."""
    folder = tmp_path_factory.mktemp("standing")
    sandbox_process.reset()
    with (
        ledger_on(request.param, request, folder) as url,
        open_shop(url, sandbox_process, folder) as shop,
    ):
        yield shop


@dataclass(frozen=True, slots=True)
class Witness:
    """Sees to it that a refused request leaves no trace: not in the ledger, the books, the answer or the log."""

    shop: Shop
    planted: list[str] = field(default_factory=list)
    """What was sent and must not be seen again anywhere."""

    def plant(self, *values: str) -> None:
        """Look for these from now on."""
        self.planted.extend(value for value in values if value)

    def refused(self, answer: TestResponse, status: int, kind: str, *, field: str | None = None) -> dict[str, Any]:
        """The problem document, which is of that kind, names that field, and repeats nothing that was planted."""
        assert (answer.status_code, answer.content_type) == (status, "application/problem+json"), answer.text
        problem: dict[str, Any] = answer.get_json(force=True)
        assert problem["type"] == f"urn:pointsman:problem:{kind}"
        assert (problem["status"], bool(problem["title"]), bool(problem["detail"])) == (status, True, True)
        if field is not None:
            assert field in [each["field"] for each in problem["errors"]]
            assert field in problem["detail"] or kind == "card-number-refused"
        shown = answer.text + json.dumps(problem, ensure_ascii=False) + str(answer.headers)
        assert not [value for value in self.planted if value in shown]
        return problem


@pytest.fixture
def witness(standing_shop: Shop, sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> Iterator[Witness]:
    """Looks at everything before and after a request that must be refused."""
    witness = Witness(standing_shop)
    before = standing_shop.counts()
    logged_before = LOG.tell()
    yield witness
    assert standing_shop.counts() == before
    assert standing_shop.charges("stripe") == standing_shop.charges("adyen") == []
    asked = standing_shop.control("GET", "/control")
    assert {name: state["requests"] for name, state in asked.items()} == {"stripe": 0, "adyen": 0}
    logged = LOG.getvalue()[logged_before:] + caplog.text
    assert not [value for value in witness.planted if value in logged]


@pytest.fixture(scope="module", params=SETTINGS, ids="-".join)
def operating_shop(
    request: pytest.FixtureRequest, sandbox_process: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Shop, str]]:
    """A router over each ledger, with each provider as the primary; a file may ask for fewer of SETTINGS."""
    with till_shop(request, sandbox_process, tmp_path_factory.mktemp("till")) as found:
        yield found


@pytest.fixture
def till(operating_shop: tuple[Shop, str], sandbox: Sandbox) -> Till:
    """The desk, with both providers well and their books empty."""
    return Till(*operating_shop)


@pytest.fixture
def ld() -> Iterator[FakeLaunchDarkly]:
    """LaunchDarkly's stand-in, with every flag as a new project has it."""
    with FakeLaunchDarkly(all_flags()) as ld:
        yield ld


@pytest.fixture
def house(tmp_path: Path, sandbox: Sandbox, ld: FakeLaunchDarkly) -> Iterator[FlipHouse]:
    """A web process and two workers with their flags there; in the end every payment is looked at."""
    with open_house(tmp_path, sandbox, ld=ld) as house:
        yield house
        house.check_payments()
