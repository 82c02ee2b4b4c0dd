"""`/webhooks/{provider}`: the providers' signed notifications, stored before they are acknowledged."""

from __future__ import annotations

from collections.abc import Mapping

import structlog
from flask import Response, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from providers.contract import Provider, WebhookRefusedError
from router import echoes
from router.api.problems import Problem, ProblemError
from router.clock import Clock
from router.ledger.inbox import Inbox

log = structlog.get_logger("router.api.webhooks")

MAXIMUM_BODY_BYTES = 1024 * 1024
"""Adyen sends batches; a thousand notifications of a kilobyte are more than any."""
ACCEPTED = {"adyen": "[accepted]"}
"""What a vendor wants to read; the others look at the status alone."""


def blueprint(providers: Mapping[str, Provider], inbox: Inbox, clock: Clock) -> APIBlueprint:
    """One route for each provider; no key of ours, for the signature says who calls."""
    api = APIBlueprint("webhooks", __name__, abp_tags=[Tag(name="webhooks", description="The providers' calls")])

    def route(name: str, provider: Provider) -> None:
        def receive() -> Response:
            request.max_content_length = MAXIMUM_BODY_BYTES
            now = clock.now()
            try:
                notices = provider.read_webhook(dict(request.headers), request.get_data(cache=False), now=now)
            except WebhookRefusedError as error:
                log.warning("webhook_refused", provider=name, cause=str(error))
                raise ProblemError(400, "webhook-refused", "The notification is not the provider's.") from None
            # Nothing of ours looks like a card number: it is another system's. Refused, it would come again for days.
            kept = [each for each in map(echoes.of_notice, notices) if each is not None]
            if len(kept) < len(notices):
                log.error("card_number_in_webhook", provider=name, dropped=len(notices) - len(kept))
            inbox.store(name, kept, now=now)
            return Response(ACCEPTED.get(name, "ok"), content_type="text/plain")

        receive.__name__ = f"receive_{name}"
        api.post(
            f"/webhooks/{name}",
            summary=f"Notifications of {name}",
            responses={200: {"description": "stored"}, 400: Problem, 413: Problem, 503: Problem},
        )(receive)

    for name, provider in providers.items():
        route(name, provider)
    return api
