"""Stops re-sends from multiplying an outage: a bucket of tokens that re-sends empty and good calls fill. Pure."""

from __future__ import annotations

import threading

TOKENS = 500
"""A hundred re-sends in a row from full: the figures are those that the AWS SDKs settled on."""
RETRY_COST = 5
"""One re-send for every five calls that succeed at once keeps the bucket level."""
TIMEOUT_RETRY_COST = 10
"""After a timeout a re-send holds a thread for another timeout, and most likely adds to an overload."""
FIRST_TRY_RETURN = 1


class ResendBudget:
    """One provider's bucket; it holds back re-sends, never a first attempt. Thread-safe."""

    def __init__(self, tokens: int = TOKENS) -> None:
        self._full = tokens
        self._tokens = tokens
        self._lock = threading.Lock()

    @property
    def tokens(self) -> int:
        """What is left."""
        return self._tokens

    def take(self, *, after_timeout: bool) -> bool:
        """Pay for a re-send; False when the bucket cannot: then there is none, and nothing is taken."""
        cost = TIMEOUT_RETRY_COST if after_timeout else RETRY_COST
        with self._lock:
            if self._tokens < cost:
                return False
            self._tokens -= cost
            return True

    def first_try_succeeded(self) -> None:
        """A call that succeeded without a re-send returns a token, up to a full bucket."""
        with self._lock:
            self._tokens = min(self._full, self._tokens + FIRST_TRY_RETURN)
