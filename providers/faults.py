"""What a send that brought no answer of the payment itself comes to: one table for every provider.

A send is `not_executed` only where it is *proved* that the provider did nothing; everything doubtful is `unknown`
(design §3, facts/providers.md). The vendors' adapters add only what is their vendor's own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from providers.contract import (
    Health,
    LookUp,
    LookUpKind,
    ModificationKind,
    ModificationOutcome,
    Outcome,
    OutcomeKind,
    ProbeResult,
)


@dataclass(frozen=True, slots=True)
class Fault:
    """A send that failed or was turned away: whether it may have done something, and whose fault it was."""

    proved_untouched: bool
    """True: the provider did nothing, for certain."""
    health: Health
    reason: str
    our_fault: bool = False

    def as_outcome(self) -> Outcome:
        """The same of an authorization."""
        kind = OutcomeKind.NOT_EXECUTED if self.proved_untouched else OutcomeKind.UNKNOWN
        return Outcome(kind, self.health, self.reason, our_fault=self.our_fault)

    def as_modification(self) -> ModificationOutcome:
        """The same of a capture, void or refund."""
        kind = ModificationKind.NOT_EXECUTED if self.proved_untouched else ModificationKind.UNKNOWN
        return ModificationOutcome(kind, self.health, self.reason, our_fault=self.our_fault)

    def as_completion(self) -> Outcome:
        """The same of a 3-D Secure completion: untouched by this send is not untouched, an earlier one counts too."""
        return Outcome(OutcomeKind.UNKNOWN, self.health, self.reason, our_fault=self.our_fault)

    def as_look_up(self) -> LookUp:
        """The same of a look-up: it told nothing."""
        return LookUp(LookUpKind.UNAVAILABLE, reason=self.reason)

    def as_probe(self) -> ProbeResult:
        """The same of a probe."""
        return ProbeResult(self.health, self.reason)


RATE_LIMITED = Fault(True, Health.PROVIDER_ERROR, "rate_limited")
CREDENTIALS_REFUSED = Fault(True, Health.CREDENTIALS_REFUSED, "credentials_refused", our_fault=True)
KEY_REUSED = Fault(False, Health.IGNORED, "idempotency_key_reused", our_fault=True)
"""This key was used before with other parameters: whatever the first send did still stands."""
KEY_IN_PROGRESS = Fault(False, Health.IGNORED, "idempotency_key_in_progress")
"""An earlier send under this key is still running, or has ended: ask again under the same key."""
ACQUIRER_FAULT = Fault(True, Health.PROVIDER_ERROR, "acquirer_error")
"""The acquirer answered that it could not do it: there is no authorization."""
SENSELESS_ANSWER = Fault(False, Health.PROVIDER_ERROR, "senseless_answer")
"""A 2xx whose body says nothing that we know how to read."""
ANOTHER_ATTEMPT = Fault(False, Health.IGNORED, "another_attempts_result", our_fault=True)
"""The provider has this result under the name of another attempt of ours: it says nothing of the one asked about."""

_BY_STATUS = {
    400: Fault(True, Health.IGNORED, "http_400", our_fault=True),
    401: CREDENTIALS_REFUSED,
    403: CREDENTIALS_REFUSED,
    404: Fault(True, Health.IGNORED, "http_404", our_fault=True),
    409: KEY_IN_PROGRESS,
    429: RATE_LIMITED,
}


def of_status(status: object) -> Fault:
    """What an answer with this HTTP status says, where its body does not matter or cannot be read.

    A status that the table does not name proves nothing, 2xx and 3xx (which we do not follow) among them.
    """
    if not isinstance(status, int):
        return SENSELESS_ANSWER
    if 200 <= status < 300:
        return SENSELESS_ANSWER
    return _BY_STATUS.get(status) or Fault(False, Health.PROVIDER_ERROR, f"http_{status}")


def ours(reason: str) -> Fault:
    """A call that was never sent, because what we were asked to send makes no sense at this provider."""
    return Fault(True, Health.IGNORED, reason, our_fault=True)


_WORD = re.compile(r"(?!(?:\D*\d){9})[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


def safe_word(word: object) -> str:
    """A vendor's status or code as it may stand in a log or a record: one short word, never a long number,
    nor one in groups."""
    text = str(word)
    return text if _WORD.fullmatch(text) else "unprintable"
