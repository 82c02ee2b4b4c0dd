"""A router's worker by hand, and its providers' webhooks in a letter box: what the tests of doubt stand on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from werkzeug.test import TestResponse

from providers.sandbox.server import SANDBOX_ADYEN_HMAC_KEY, SANDBOX_STRIPE_WEBHOOK_SECRET
from router.app.loops import build_notices, build_resolver
from router.ledger.tables import payments
from router.notices import Notices
from router.settings import PROVIDER_NAMES
from tests.integration.shop import Shop
from tests.unit.webhook_receiver import Receiver, until

OTHER = {"stripe": "adyen", "adyen": "stripe"}
SECRETS: Mapping[str, Any] = {
    "stripe_webhook_secret": SANDBOX_STRIPE_WEBHOOK_SECRET,
    "adyen_hmac_key": SANDBOX_ADYEN_HMAC_KEY,
}
"""Settings with which the stand-ins' signatures are believed."""
MANUAL: Mapping[str, Any] = {"capture": "manual"}

Letter = tuple[str, dict[str, str], bytes]
"""Provider, headers, body."""


@dataclass(frozen=True, slots=True)
class Desk:
    """A shop, and the hands of its worker."""

    shop: Shop

    def resolve(self, rounds: int = 1) -> int:
        """Let the resolver work, as if each time that it waits for were over; how many payments it settled."""
        resolver = build_resolver(self.shop.core)
        settled = 0
        for _ in range(rounds):
            self.change_all("resolve_at = 0 WHERE resolve_at IS NOT NULL")
            settled += resolver.run_once()
        return settled

    def read_notices(self) -> int:
        """Apply what lies in the inbox, as if each time that it waits for were over."""
        core = self.shop.core
        with core.database.write() as connection:
            connection.exec_driver_sql("UPDATE webhooks SET next_try_at = 0 WHERE applied_at IS NULL")
        return self.notices().run_once()

    def notices(self) -> Notices:
        """The worker's loop over the inbox."""
        return build_notices(self.shop.core)

    def change_all(self, change: str) -> None:
        """Change rows of payments behind the router's back."""
        with self.shop.core.database.write() as connection:
            connection.exec_driver_sql(f"UPDATE payments SET {change}")

    def forget_checkout(self, payment_id: str, seconds: float) -> None:
        """As if checkout had never been answered, had last asked so long ago, and nothing was sent since."""
        micros = round(seconds * 1e6)
        self.change_all(f"told = FALSE, contact_at = contact_at - {micros} WHERE id = '{payment_id}'")
        with self.shop.core.database.write() as connection:
            connection.exec_driver_sql(
                f"UPDATE attempts SET started_at = started_at - {micros}, last_sent_at = last_sent_at - {micros}"
                f" WHERE payment_id = '{payment_id}'"
            )

    def operations(self, payment_id: str) -> list[tuple[str, str, int]]:
        """Kind, state and amount of a payment's operations, in their order."""
        query = "SELECT kind, state, amount FROM operations WHERE payment_id = :id ORDER BY started_at, id"
        return [(row["kind"], row["state"], row["amount"]) for row in self.shop.rows(query, id=payment_id)]

    def row(self, payment_id: str) -> dict[str, Any]:
        """A payment's row."""
        with self.shop.core.database.read() as connection:
            return dict(connection.execute(payments.select().where(payments.c.id == payment_id)).mappings().one())

    def ask(self, payment_id: str, what: str, body: Any = None, *, key: str, **more: Any) -> TestResponse:
        """`POST /v1/payments/{id}/{what}`."""
        return self.shop.send("POST", f"/v1/payments/{payment_id}/{what}", key=key, json=body or {}, **more)

    def books(self, reference: str) -> list[dict[str, Any]]:
        """Every charge with this reference, anywhere, that is not a decline."""
        found = [{"provider": name, **each} for name in PROVIDER_NAMES for each in self.shop.charges(name, reference)]
        return [each for each in found if each["status"] != "declined"]

    def happen(self, provider: str, reference: str, kind: str) -> None:
        """Let something happen to the charge with this reference."""
        (charge,) = self.shop.charges(provider, reference)
        self.shop.control("POST", f"/control/{provider}/events", json={"charge": charge["id"], "type": kind})

    def scalar(self, query: str, **values: Any) -> Any:
        """One value of the ledger."""
        with self.shop.core.database.read() as connection:
            return connection.scalar(sa.text(query), values)


class LetterBox(Receiver):
    """Where the stand-ins' webhooks come in; nothing is forwarded by itself."""

    def __init__(self, shop: Shop) -> None:
        super().__init__()
        self.shop = shop

    def letters(self, provider: str, count: int) -> list[Letter]:
        """Everything that came from a provider, once that much did."""
        until(lambda: len(self.of(f"/{provider}")) >= count)
        return [(provider, headers, body) for headers, body in self.of(f"/{provider}")]

    def all_told(self) -> list[Letter]:
        """Everything that any provider has to tell so far."""
        until(lambda: all(self._waiting(name) == 0 for name in PROVIDER_NAMES))
        return [(path.strip("/"), headers, body) for path, headers, body in list(self.requests)]

    def _waiting(self, provider: str) -> int:
        waiting: int = self.shop.control("GET", f"/control/{provider}/webhooks")["waiting"]
        return waiting

    def forward(self, letter: Letter) -> TestResponse:
        """Hand one to the router, as the provider would."""
        provider, headers, body = letter
        kept = {name: value for name, value in headers.items() if name.lower() not in ("host", "content-length")}
        return self.shop.send("POST", f"/webhooks/{provider}", api_key=None, data=body, headers=kept)

    def forward_all(self) -> int:
        """Hand everything to the router that it has not got yet, in order; how many."""
        letters = self.all_told()
        self.requests.clear()
        for letter in letters:
            assert self.forward(letter).status_code == 200
        return len(letters)


@contextlib.contextmanager
def letter_box(shop: Shop) -> Iterator[LetterBox]:
    """The stand-ins tell of everything, without a delay, from now on."""
    box = LetterBox(shop)
    for name in PROVIDER_NAMES:
        shop.control("PUT", f"/control/{name}/webhooks", json={"url": f"{box.url}/{name}", "delay_ms": 0})
    try:
        yield box
    finally:
        for name in PROVIDER_NAMES:
            shop.control("PUT", f"/control/{name}/webhooks", json={"url": None})
        box.close()
