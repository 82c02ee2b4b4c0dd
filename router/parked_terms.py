"""Whether a payment may wait for a provider, and for how long until its next try. Pure."""

from __future__ import annotations

import datetime as dt
from typing import Literal

from router.order import Order

WhenUnavailable = Literal["park", "fail"]

LONGEST_WAIT_S = 600.0
"""Between two tries: a circuit that recovers wakes all who wait, so this is for what no circuit tells of."""


def may_wait(order: Order, default: WhenUnavailable) -> bool:
    """Whether it is parked while nobody can take it; `default` is its merchant's.

    Checkout's own word wins. Where it says nothing, a payment whose customer is in session for 3-D Secure cannot
    wait: she is not there any more when her bank asks for her. That is one that she started herself, with what
    3-D Secure wants to know of her browser given.
    """
    if order.when_unavailable is not None:
        return order.when_unavailable == "park"
    if order.initiator == "customer" and order.browser is not None:
        return False
    return default == "park"


def next_try(now: dt.datetime, created_at: dt.datetime, first_s: float, random: float) -> dt.datetime:
    """When a payment is tried again that nobody took now.

    After as long again as it has waited: exponential, with nothing to count. Between `first_s` and LONGEST_WAIT_S,
    less up to half of it by `random` (0 to 1): what was parked together is not to come back together.
    """
    waited_s = (now - created_at).total_seconds()
    wait_s = max(first_s, min(waited_s, LONGEST_WAIT_S))
    return now + dt.timedelta(seconds=wait_s * (1 - random / 2))
