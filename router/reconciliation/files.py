"""Which provider's file is read how, and whose it has to be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from providers import settlement_adyen, settlement_stripe
from providers.settlement import Lines, SettlementLine
from router.settings import Settings


@dataclass(frozen=True, slots=True)
class Format:
    """One provider's files."""

    account: str
    """Whose they are; part of what makes a file the same one."""
    read: Callable[[Lines], Iterator[SettlementLine]]
    """Every line. Raises SettlementFileError, also where the file is another account's."""


def formats(settings: Settings) -> Mapping[str, Format]:
    """By provider."""
    livemode = "_live_" in settings.stripe_api_key.get_secret_value()
    account = settings.adyen_merchant_account
    return {
        "stripe": Format(
            "live" if livemode else "test", lambda stream: settlement_stripe.read(stream, livemode=livemode)
        ),
        "adyen": Format(account, lambda stream: settlement_adyen.read(stream, merchant_account=account)),
    }
