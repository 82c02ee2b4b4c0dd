"""The console's doors: who may come in, what a form must bring back, and what every answer forbids the browser."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import structlog
from flask import Blueprint, Response, g, make_response, redirect, render_template, request, url_for
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from router.console import (
    formats,
    page_flags,
    page_incidents,
    page_now,
    page_payments,
    page_reports,
    page_sandbox,
    page_settlements,
)
from router.console.access import RefusedError, TooManyError
from router.console.doors import HEADERS, STATIC_KEPT_S
from router.console.parts import PageError, Parts, refuse, require
from router.ledger.unavailable import LedgerUnavailableError
from router.pan_written import holds_pan as contains_pan

log = structlog.get_logger("router.console")

SESSION_COOKIE = "pointsman_session"
LOGIN_COOKIE = "pointsman_login"
PATH = "/console"
FRAGMENT = "X-Fragment"
"""Asked for by the page's own script: a part of a page, and no detour to the login."""
OPEN = frozenset({"console.login", "console.log_in", "console.static", "console.missing"})
"""Endpoints for which nobody needs to be logged in."""
LOGIN_BYTES = 8 * 1024
"""Of a form that anybody sends: a key or a password. Looking for card numbers in 64 KB takes half a second."""
FILES = {"console.import_settlement": 256 * 1024 * 1024}
"""Endpoints that take a file, for operators alone, and its most bytes: as `/v1/settlements` does."""
TABS = (
    ("now", "Now", ("operate", "reports")),
    ("payments", "Payments", ("payments", "operate")),
    ("incidents", "Incidents", ("operate", "reports")),
    ("reports", "Reports", ("reports",)),
    ("settlements", "Settlements", ("operate", "reports")),
    ("flags", "Flags", ("operate", "reports")),
    ("sandbox", "Sandbox", ("payments", "operate")),
)
"""Endpoint, name, and the scopes of which one is needed to see it."""


def blueprint(parts: Parts) -> Blueprint:
    """The pages under `/console`."""
    pages = Blueprint(
        "console",
        __name__,
        url_prefix=PATH,
        template_folder="templates",
        static_folder="static",
    )
    _guard(pages, parts)
    _add_login(pages, parts)
    _answer_faults(pages)
    page_now.add(pages, parts)
    page_payments.add(pages, parts)
    page_incidents.add(pages, parts)
    page_reports.add(pages, parts, parts.rollups, parts.decision_log)
    page_settlements.add(pages, parts)
    page_flags.add(pages, parts)
    if parts.stand_ins is not None:
        page_sandbox.add(pages, parts, parts.stand_ins)
    _add_templates(pages, parts)

    @pages.get("")
    @pages.get("/")
    def home() -> BaseResponse:
        tabs = _tabs(parts)
        if not tabs:
            refuse(403, "Not with this login", "No page of the console can be seen with these scopes.")
        return redirect(url_for(f"console.{tabs[0][0]}"))

    @pages.route("/<path:rest>", methods=["GET", "POST"])
    def missing(rest: str) -> str:  # noqa: ARG001 - whatever it is, it is not repeated
        refuse(404, "Not found", "There is no such page.")

    return pages


def _tabs(parts: Parts) -> list[tuple[str, str, tuple[str, ...]]]:
    """The pages that this session may see."""
    session = g.get("session")
    return [
        each
        for each in TABS
        if session is not None
        and not session.scopes.isdisjoint(each[2])
        and (each[0] != "sandbox" or parts.stand_ins is not None)
    ]


# ---------------------------------------------------------------- before and after


def _guard(pages: Blueprint, parts: Parts) -> None:
    @pages.before_request
    def come_in() -> BaseResponse | None:
        if request.endpoint == "console.static":
            return None
        if contains_pan(request.path):
            _refuse_card()
        _look_for_cards(request.args)
        if request.endpoint in OPEN:
            request.max_content_length = LOGIN_BYTES
            _look_for_cards(request.form)
            return None
        g.session = parts.access.session(request.cookies.get(SESSION_COOKIE))
        if g.session is None:
            if FRAGMENT in request.headers:
                return Response(status=401)
            back = request.full_path.rstrip("?") if request.method == "GET" else None
            return redirect(url_for("console.login", next=back))
        if request.endpoint in FILES and request.method == "POST":
            # Before a byte of it is read: of nobody else a file is taken.
            require("operate")
            request.max_content_length = FILES[request.endpoint]
        _look_for_cards(request.form)
        if request.method == "POST":
            _check_form(parts, g.session.digest)
        return None

    @pages.after_request
    def forbid(response: Response) -> Response:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if request.endpoint == "console.static":
            response.headers["Cache-Control"] = f"public, max-age={STATIC_KEPT_S}, immutable"
        else:
            # What is shown is somebody's: neither a proxy nor the next user of this browser may have it.
            response.headers.setdefault("Cache-Control", "no-store")
        return response


def _look_for_cards(form: MultiDict[str, str]) -> None:
    """Raises a page of 422 where a name or a value could be a card number; a file's are looked for by its import."""
    if any(contains_pan(part) for pair in form.items(multi=True) for part in pair):
        _refuse_card()


def _refuse_card() -> NoReturn:
    refuse(422, "A card number is not accepted here", "Nothing was looked up or kept.")


def _check_form(parts: Parts, of: str) -> None:
    """A form comes from one of our own pages, made for this session. Raises a page of 403."""
    from_here = request.headers.get("Sec-Fetch-Site", "same-origin") in ("same-origin", "none")
    if not from_here or not parts.access.is_form_token(request.form.get("form_token", ""), of):
        refuse(403, "This form is not from here", "Nothing was done. Load the page again, and use its form.")


# ---------------------------------------------------------------- logging in and out


def _add_login(pages: Blueprint, parts: Parts) -> None:
    @pages.get("/login")
    def login() -> BaseResponse:
        return _login_page(parts)

    @pages.post("/login")
    def log_in() -> BaseResponse:
        _check_form(parts, request.cookies.get(LOGIN_COOKIE) or refuse_login())
        origin = request.remote_addr or "unknown"
        try:
            session, cookie = parts.access.log_in(
                request.form.get("word", "").strip(), origin=origin, cookie=request.cookies.get(SESSION_COOKIE)
            )
        except RefusedError as error:
            status = 429 if isinstance(error, TooManyError) else 401
            log.warning("console_login_refused", origin=origin, too_many=status == 429)
            return _login_page(parts, error=str(error), status=status)
        log.info("console_login", merchant=session.merchant, label=session.label, origin=origin)
        answer = redirect(_inside(request.form.get("next", "")) or url_for("console.home"), code=303)
        lasts_s = int((session.expires_at - session.created_at).total_seconds())
        _set_cookie(answer, SESSION_COOKIE, cookie, parts, max_age=lasts_s)
        answer.delete_cookie(LOGIN_COOKIE, path=PATH)
        return answer

    @pages.post("/logout")
    def log_out() -> BaseResponse:
        parts.access.log_out(g.session)
        answer = redirect(url_for("console.login"), code=303)
        answer.delete_cookie(SESSION_COOKIE, path=PATH)
        return answer


def refuse_login() -> str:
    """The login page's own cookie is missing."""
    refuse(403, "This form is not from here", "Load the login page again, with cookies allowed.")


def _login_page(parts: Parts, *, error: str | None = None, status: int = 200) -> BaseResponse:
    nonce = secrets.token_urlsafe(24)
    page = render_template(
        "console/login.html",
        error=error,
        next=_inside(request.values.get("next", "")) or "",
        login_token=parts.access.form_token(nonce),
    )
    answer = make_response(page, status)
    _set_cookie(answer, LOGIN_COOKIE, nonce, parts, max_age=3600)
    if status == 429:
        answer.headers["Retry-After"] = "600"
    return answer


def _inside(target: str) -> str | None:
    """The address, if it is one of the console's own pages: a login must not send anybody elsewhere."""
    split = urlsplit(target)
    plain = not split.scheme and not split.netloc and "\\" not in target and "//" not in target
    return target if plain and split.path.startswith(PATH + "/") and target.isprintable() else None


def _set_cookie(answer: BaseResponse, name: str, value: str, parts: Parts, *, max_age: int) -> None:
    secure = parts.https or request.is_secure
    answer.set_cookie(name, value, max_age=max_age, path=PATH, httponly=True, samesite="Strict", secure=secure)


# ---------------------------------------------------------------- pages


def _add_templates(pages: Blueprint, parts: Parts) -> None:
    folder = Path(__file__).with_name("static")
    digests = {each.name: hashlib.sha256(each.read_bytes()).hexdigest()[:12] for each in folder.iterdir()}

    def static(name: str) -> str:
        return url_for("console.static", filename=name, v=digests[name])

    @pages.record
    def install(state: Any) -> None:
        state.app.jinja_env.filters.update(formats.FILTERS)

    @pages.context_processor
    def always() -> dict[str, Any]:
        session = g.get("session")
        return {
            "session": session,
            "tabs": _tabs(parts),
            "static": static,
            "form_token": None if session is None else parts.access.form_token(session.digest),
            "now": parts.clock.now(),
        }


def _answer_faults(pages: Blueprint) -> None:
    def page(status: int, title: str, detail: str) -> BaseResponse:
        return make_response(render_template("console/error.html", status=status, title=title, detail=detail), status)

    @pages.errorhandler(PageError)
    def _refused(error: PageError) -> BaseResponse:
        return page(error.status, error.title, error.detail)

    @pages.errorhandler(LedgerUnavailableError)
    def _no_ledger(error: LedgerUnavailableError) -> BaseResponse:
        log.error("ledger_unavailable", cause=str(error))
        answer = page(503, "The ledger is away", "Payments and their history cannot be shown until it is back.")
        answer.headers["Retry-After"] = "5"
        return answer

    @pages.errorhandler(HTTPException)
    def _http(error: HTTPException) -> BaseResponse:
        return page(error.code or 500, error.name or "Error", "This cannot be shown.")

    @pages.errorhandler(Exception)
    def _fault(_error: Exception) -> BaseResponse:
        log.exception("fault", method=request.method, endpoint=request.endpoint)
        return page(500, "A fault of ours", "It has been reported.")
