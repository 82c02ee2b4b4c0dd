"""One provider under test, with its stand-in's control port and books at hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import urllib3

from providers.contract import ChargeRequest, Money, Outcome, Provider, Timeouts
from providers.sandbox.server import Sandbox
from tests.contract.drivers import Driver

PATIENT = Timeouts(connect_s=2, read_s=5)
SHORT = Timeouts(connect_s=1, read_s=0.2)
REQUEST = ChargeRequest(
    attempt_id="att_1",
    payment_id="pay_1",
    reference="ORD-1",
    money=Money(1999, "EUR"),
    capture="automatic",
    method="card",
    token="",
    customer_id="cus_1",
    customer_country="DE",
)


@dataclass
class Case:
    """One provider under test, with its stand-in's control port at hand."""

    driver: Driver
    provider: Provider
    sandbox: Sandbox

    def charge(self, timeouts: Timeouts = PATIENT, key: str | None = None, **change: Any) -> Outcome:
        """One payment; the attempt's id is its key."""
        request = replace(REQUEST, **{"token": self.driver.approved, **change})
        params = self.provider.render(request)
        return self.provider.authorize(params, idempotency_key=key or request.attempt_id, timeouts=timeouts)

    def set_account(self, **account: Any) -> None:
        """How our account stands at the provider."""
        url = f"{self.sandbox.control_url}/control/{self.driver.name}/account"
        assert urllib3.request("PUT", url, json=account).status == 200

    def books(self) -> list[dict[str, Any]]:
        """What the provider itself wrote down, declines left out."""
        url = f"{self.sandbox.control_url}/control/{self.driver.name}/charges"
        charges = urllib3.request("GET", url).json()["charges"]
        return [charge for charge in charges if charge["status"] != "declined"]

    def only_charge(self) -> dict[str, Any]:
        """The one charge in the books."""
        charges = self.books()
        assert len(charges) == 1, charges
        return charges[0]

    def requests(self) -> int:
        """How many requests reached the provider."""
        return int(
            urllib3.request("GET", f"{self.sandbox.control_url}/control/{self.driver.name}").json()["requests"]
        )

    def break_it(self, mode: str, **more: object) -> None:
        """Set the fault mode."""
        url = f"{self.sandbox.control_url}/control/{self.driver.name}"
        reply = urllib3.request("PUT", url, json={"mode": mode, **more})
        assert reply.status == 200, reply.data
