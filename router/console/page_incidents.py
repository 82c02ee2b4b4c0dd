"""*Incidents and flips*: what happened, on which figures, and a flip's undoing."""

from __future__ import annotations

import structlog
from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from router.api import operator_views
from router.api.paging import page_of
from router.console.parts import Parts, an_id, asked, refuse, require, told
from router.ledger.flips import RestoreRefusedError

log = structlog.get_logger("router.console")

FLIPS_SHOWN = 50
ENDED = ("superseded", "restored")


def add(pages: Blueprint, parts: Parts) -> None:
    """The pages."""

    @pages.get("/incidents")
    def incidents() -> str:
        require("operate", "reports")
        cursor = asked("cursor")
        page, following = page_of(
            lambda limit: parts.circuits.incidents(parts.providers, limit=limit, before=cursor), lambda each: each.id
        )
        moved = parts.flips.of(each.id for each in page)
        at = parts.clock.now()
        rows = [
            (each, operator_views.incident_json(each, moved.get(each.id), at), each.ended_at(at)) for each in page
        ]
        flips = parts.flips.newest(limit=FLIPS_SHOWN)
        return render_template("console/incidents.html", rows=rows, following=following, flips=flips, ended=ENDED)

    @pages.get("/incidents/<incident>")
    def incident(incident: str) -> str:
        require("operate", "reports")
        opening = parts.circuits.opening(an_id(incident))
        if opening is None:
            refuse(404, "Not found", "There is no such incident.")
        flip = parts.flips.of([incident]).get(incident)
        return render_template(
            "console/incident.html",
            incident=incident,
            opening=opening,
            moves=parts.circuit_story.of_incident(incident),
            flip=None if flip is None else parts.flips.get(flip),
        )

    @pages.get("/flips/<flip_id>")
    def flip(flip_id: str) -> str:
        require("operate", "reports")
        found = parts.flips.get(an_id(flip_id))
        if found is None:
            refuse(404, "Not found", "There is no such flip.")
        overriding = any(each.flip == found.id for each in parts.override.in_force)
        return render_template(
            "console/flip.html", flip=found, overriding=overriding, asked=request.args.get("asked"), ended=ENDED
        )

    @pages.post("/flips/<flip_id>/restore")
    def restore(flip_id: str) -> BaseResponse:
        session = require("operate")
        flip_id, reason = an_id(flip_id), told("reason")
        if request.form.get("confirmed") != "yes":
            refuse(422, "Please confirm", "Nothing was done: the box that says so was not ticked.")
        by = f"operator: {session.label} of {session.merchant}"
        try:
            found = parts.flips.ask_restore(flip_id, by=by, reason=reason, at=parts.clock.now())
        except RestoreRefusedError as error:
            refuse(409, "This flip cannot be restored", str(error))
        if found is None:
            refuse(404, "Not found", "There is no such flip.")
        log.warning("restore_asked", flip=found.id, by=by, reason=reason)
        return redirect(url_for("console.flip", flip_id=found.id, asked="yes"), code=303)
