"""What Adyen's Management API says of a merchant account (v3, `GET /merchants/{merchantId}`). Pure.

It tells a status and no deadline: an Adyen account is able or not, never at risk.
https://docs.adyen.com/api-explorer/Management/3/get/merchants/(merchantId)
"""

from __future__ import annotations

from collections.abc import Mapping

from providers.contract import AccountStanding, AccountState

_UNABLE = {
    "PreActive": "not_active_yet",
    "InactiveWithModifications": "modifications_only",
    "Inactive": "inactive",
    "Closed": "closed",
}


def standing(merchant: object) -> AccountStanding | None:
    """None: that is no merchant account, or its status is none that we know."""
    status = merchant.get("status") if isinstance(merchant, Mapping) else None
    if status == "Active":
        return AccountStanding(AccountState.ABLE)
    why = _UNABLE.get(status) if isinstance(status, str) else None
    return None if why is None else AccountStanding(AccountState.UNABLE, (why,))
