"""What people do with webhook endpoints, over the API and from the command line: the same rules for both."""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Sequence

from router import events
from router.clock import Clock, Ids
from router.ledger.event_feed import EventFeed
from router.ledger.webhook_endpoints import EndpointLedger
from router.ledger.webhook_records import Endpoint
from router.webhooks_out_addresses import Network
from router.webhooks_out_urls import BadUrlError, target_of

SECRET_BYTES = 32
OLD_SECRET_FOR_H = 24
"""Hours for which both secrets sign after a rotation, where nobody says another number."""
OLD_SECRET_AT_MOST_H = 24 * 7
KNOWN_TYPES = tuple(events.PREFIX + word for word in events.WORDS)


class BadEndpointError(ValueError):
    """A field of an endpoint is wrong; never says its value."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field = field
        self.detail = detail


class NoSuchEndpointError(Exception):
    """This merchant has no endpoint of this id."""


class Endpoints:
    """Creates, changes and ends endpoints. `merchant` None: whoever's, for operators at the machine itself."""

    def __init__(
        self,
        ledger: EndpointLedger,
        feed: EventFeed,
        *,
        allow_http: bool,
        allowed: Sequence[Network],
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._ledger = ledger
        self._feed = feed
        self._allow_http = allow_http
        self._allowed = allowed
        self._clock = clock
        self._ids = ids

    def create(
        self, *, merchant: str, url: str, event_types: Sequence[str] = (), description: str = ""
    ) -> tuple[Endpoint, str]:
        """A new endpoint, told of whatever happens from now on, and its secret, which is not shown again.

        Raises BadEndpointError, TooManyEndpointsError.
        """
        try:
            target_of(url, allow_http=self._allow_http, allowed=self._allowed)
        except BadUrlError as error:
            raise BadEndpointError("url", str(error)) from None
        now, secret = self._clock.now(), new_secret()
        endpoint = Endpoint(
            id=self._ids.new("whe"),
            merchant=merchant,
            url=url,
            event_types=self._checked(event_types),
            description=description,
            state="enabled",
            state_at=now,
            created_at=now,
        )
        self._ledger.add(endpoint, secret, begins=self._feed.head())
        return endpoint, secret

    def find(self, endpoint_id: str, merchant: str | None) -> Endpoint:
        """Raises NoSuchEndpointError."""
        found = self._ledger.find(endpoint_id)
        if found is None or merchant not in (None, found.merchant):
            raise NoSuchEndpointError
        return found

    def list(self, merchant: str | None) -> Sequence[Endpoint]:
        """Oldest first."""
        return self._ledger.of(merchant)

    def rotate(self, endpoint_id: str, merchant: str | None, *, old_for_h: float = OLD_SECRET_FOR_H) -> str:
        """A new secret; the present one signs beside it for so long. Raises NoSuchEndpointError, BadEndpointError."""
        if not 0 <= old_for_h <= OLD_SECRET_AT_MOST_H:
            raise BadEndpointError("old_secret_hours", f"must be 0 to {OLD_SECRET_AT_MOST_H}")
        self.find(endpoint_id, merchant)
        now, secret = self._clock.now(), new_secret()
        done = self._ledger.rotate(endpoint_id, secret, now=now, old_until=now + dt.timedelta(hours=old_for_h))
        self._there(done)
        return secret

    def disable(self, endpoint_id: str, merchant: str | None, cause: str) -> Endpoint:
        """Send it nothing until it is enabled; one that is disabled stays as it is. Raises NoSuchEndpointError."""
        self.find(endpoint_id, merchant)
        self._ledger.disable(endpoint_id, cause, now=self._clock.now())
        return self.find(endpoint_id, merchant)

    def enable(self, endpoint_id: str, merchant: str | None) -> Endpoint:
        """Go on where it was left, at once. Raises NoSuchEndpointError."""
        self.find(endpoint_id, merchant)
        self._there(self._ledger.enable(endpoint_id, now=self._clock.now()))
        return self.find(endpoint_id, merchant)

    def delete(self, endpoint_id: str, merchant: str | None) -> None:
        """Raises NoSuchEndpointError."""
        self.find(endpoint_id, merchant)
        self._there(self._ledger.delete(endpoint_id, now=self._clock.now()))

    def resend(self, endpoint_id: str, merchant: str | None, since: dt.datetime) -> None:
        """Everything since then once more. Raises NoSuchEndpointError, BadEndpointError."""
        if since > self._clock.now():
            raise BadEndpointError("since", "must not be in the future")
        self.find(endpoint_id, merchant)
        self._there(self._ledger.resend(endpoint_id, since))

    @staticmethod
    def _checked(event_types: Sequence[str]) -> tuple[str, ...]:
        if not set(event_types) <= set(KNOWN_TYPES):
            raise BadEndpointError("event_types", f"must be of {', '.join(KNOWN_TYPES)}")
        return tuple(dict.fromkeys(event_types))

    @staticmethod
    def _there(done: bool) -> None:
        if not done:  # it was deleted at this moment
            raise NoSuchEndpointError


def new_secret() -> str:
    """256 random bits, recognizable where one leaks."""
    return f"whsec_{secrets.token_urlsafe(SECRET_BYTES)}"
