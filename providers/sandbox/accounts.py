"""The merchant's account at a stand-in, as the control port sets it: able, at risk, or unable to take payments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from providers.sandbox.faults import BadFault, read_fields

STATES = ("able", "at_risk", "unable")


@dataclass(slots=True)
class Account:
    """How it stands."""

    state: str = "able"
    due_in_s: int | None = None
    """At risk: seconds from when it is asked about; None: no deadline."""

    def configure(self, body: Any) -> None:
        """As a control call says. Raises BadFault."""
        fields = read_fields(body, {"state": _state, "due_in_seconds": _seconds})
        self.state, self.due_in_s = fields.get("state", "able"), fields.get("due_in_seconds")

    def as_json(self) -> dict[str, Any]:
        """As the control port shows it."""
        return {"state": self.state, "due_in_seconds": self.due_in_s}

    def at_stripe(self, now: float) -> Mapping[str, Any]:
        """Stripe's account object, as far as it is about taking payments."""
        unable, risky = self.state == "unable", self.state == "at_risk"
        deadline = int(now) + self.due_in_s if risky and self.due_in_s is not None else None
        due = ["company.verification.document"] if unable or risky else []
        return {
            "id": "acct_sandbox",
            "object": "account",
            "charges_enabled": not unable,
            "payouts_enabled": not unable,
            "details_submitted": True,
            "capabilities": {"card_payments": "inactive" if unable else "active"},
            "requirements": {
                "currently_due": due,
                "past_due": due if unable or (risky and deadline is None) else [],
                "eventually_due": due,
                "current_deadline": deadline,
                "disabled_reason": "requirements.past_due" if unable else None,
            },
            "future_requirements": {"currently_due": [], "past_due": [], "current_deadline": None},
        }

    def at_adyen(self, merchant: str) -> Mapping[str, Any]:
        """Adyen's merchant account: it knows no risk."""
        status = "InactiveWithModifications" if self.state == "unable" else "Active"
        return {"id": merchant, "name": merchant, "companyId": "SandboxCompany", "status": status}


def _state(name: str, value: Any) -> str:
    if value not in STATES:
        raise BadFault(name, f"unknown state; known are {', '.join(STATES)}")
    return str(value)


def _seconds(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 10**9:
        raise BadFault(name, "must be a number of seconds, 0 to 1000000000")
    return value
