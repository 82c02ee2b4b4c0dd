"""A payment provider that answers as told, and remembers what it was asked."""

from __future__ import annotations

import datetime as dt
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from providers.contract import (
    AccountStanding,
    ChargeRequest,
    Decline,
    DeclineClass,
    Health,
    Ineligible,
    LookUp,
    LookUpKind,
    ModificationKind,
    ModificationOutcome,
    Money,
    Notice,
    Outcome,
    OutcomeKind,
    Params,
    ProbeResult,
    Timeouts,
    WebhookRefusedError,
)

DONE = ModificationOutcome(ModificationKind.DONE, Health.OK)
CAPTURED = Outcome(OutcomeKind.APPROVED, Health.OK, provider_reference="ref_1", captured=True)
AUTHORIZED = Outcome(OutcomeKind.APPROVED, Health.OK, provider_reference="ref_1")
UNKNOWN = Outcome(OutcomeKind.UNKNOWN, Health.PROVIDER_ERROR, reason="http_503")
REFUSED = Outcome(OutcomeKind.NOT_EXECUTED, Health.UNREACHABLE, reason="connection_refused")
REJECTED = Outcome(OutcomeKind.NOT_EXECUTED, Health.IGNORED, reason="http_400", our_fault=True)
ACTION = Outcome(
    OutcomeKind.REQUIRES_ACTION, Health.OK, provider_reference="ref_1", next_action={"type": "redirect", "url": "u"}
)


def declined(decline_class: DeclineClass = DeclineClass.SOFT, *, cascade: bool = True) -> Outcome:
    """A decline of that class."""
    decline = Decline(decline_class, "do_not_honor", "The card was declined.", cascade=cascade, network_code="05")
    return Outcome(OutcomeKind.DECLINED, Health.OK, provider_reference="ref_1", decline=decline)


@dataclass(frozen=True, slots=True)
class Call:
    """One authorization that a provider was asked for."""

    provider: str
    params: Params
    idempotency_key: str
    timeouts: Timeouts

    @property
    def payment_id(self) -> str:
        """The payment that the parameters name."""
        return str(self.params["payment"])


class FakeProvider:
    """Satisfies `Provider`. Answers `outcomes` one by one, then CAPTURED; `probes` likewise, then healthy."""

    def __init__(self, name: str, outcomes: Iterable[Outcome] = (), *, ineligible: str | None = None) -> None:
        self.name = name
        self.outcomes = deque(outcomes)
        self.probes: deque[ProbeResult] = deque()
        self.accounts: deque[AccountStanding | None] = deque()
        self.ineligible = ineligible
        self.look_ups: deque[LookUp] = deque()
        self.looked_up: list[str] = []
        self.completions: deque[Outcome] = deque()
        self.calls: list[Call] = []
        self.probed = 0
        self.during: Callable[[Call], object] | None = None
        """Runs inside every authorization, before it is answered."""
        self.during_probe: Callable[[], object] | None = None

    def is_reference(self, reference: str) -> bool:
        return " " not in reference

    def check(self, method: str, money: Money) -> None:
        if self.ineligible is not None:
            raise Ineligible(self.ineligible)

    def render(self, request: ChargeRequest) -> Params:
        if self.ineligible is not None:
            raise Ineligible(self.ineligible)
        return {
            "payment": request.payment_id,
            "attempt": request.attempt_id,
            "reference": request.reference,
            "amount": request.money.amount,
            "token": request.token,
        }

    def authorize(self, params: Params, *, idempotency_key: str, timeouts: Timeouts) -> Outcome:
        call = Call(self.name, params, idempotency_key, timeouts)
        self.calls.append(call)
        if self.during is not None:
            self.during(call)
        return self.outcomes.popleft() if self.outcomes else CAPTURED

    def capture(self, *_args: Any, **_named: Any) -> ModificationOutcome:
        return DONE

    def void(self, *_args: Any, **_named: Any) -> ModificationOutcome:
        return DONE

    def refund(
        self, provider_reference: str, money: Money, *, idempotency_key: str, timeouts: Timeouts
    ) -> ModificationOutcome:
        return DONE

    def look_up(
        self,
        attempt_id: str,
        *,
        provider_reference: str | None,
        sent_from: dt.datetime,
        sent_until: dt.datetime,
        timeouts: Timeouts,
    ) -> LookUp:
        self.looked_up.append(attempt_id)
        return self.look_ups.popleft() if self.look_ups else LookUp(LookUpKind.NOT_FOUND)

    def void_attempt(self, attempt_id: str, *, idempotency_key: str, timeouts: Timeouts) -> ModificationOutcome:
        return ModificationOutcome(ModificationKind.RECEIVED, Health.OK)

    def complete(
        self,
        provider_reference: str | None,
        details: Mapping[str, Any],
        *,
        capture: Literal["automatic", "manual"],
        idempotency_key: str,
        timeouts: Timeouts,
        attempt_id: str | None = None,
    ) -> Outcome:
        return self.completions.popleft() if self.completions else CAPTURED

    def read_webhook(self, headers: Mapping[str, str], body: bytes, *, now: dt.datetime) -> Sequence[Notice]:
        raise WebhookRefusedError("a fake has no webhooks")

    def probe(self, *, timeouts: Timeouts) -> ProbeResult:
        self.probed += 1
        if self.during_probe is not None:
            self.during_probe()
        return self.probes.popleft() if self.probes else ProbeResult(Health.OK)

    def account(self, *, timeouts: Timeouts) -> AccountStanding | None:
        return self.accounts.popleft() if self.accounts else None

    def close(self) -> None:
        """Nothing to drop."""
