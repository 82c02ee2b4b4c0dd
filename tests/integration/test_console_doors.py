"""The console's doors: who is let in, what a form must bring back, and what no page ever says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from werkzeug.test import TestResponse

from providers.sandbox.server import Sandbox
from router.console.passwords import hashed
from router.ledger.console_access import ConsoleAccess, Password
from tests.integration.console_visitor import Visitor, visitor
from tests.integration.ledgers import BACKENDS, ledger_on
from tests.integration.shop import API_KEY, LOG, Shop, open_shop

pytestmark = pytest.mark.either_database

PAN = "4242 4242 4242 4242"
PAGES = ("/now", "/now/live", "/payments", "/incidents", "/reports", "/settlements", "/flags", "/sandbox")
EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


@pytest.fixture(scope="module", params=BACKENDS)
def shop(
    request: pytest.FixtureRequest, sandbox_process: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    """A router whose console may break its providers."""
    folder = tmp_path_factory.mktemp("console")
    control = int(sandbox_process.control_url.rpartition(":")[2])
    with (
        ledger_on(request.param, request, folder) as url,
        open_shop(url, sandbox_process, folder, console_sandbox=True, sandbox_control_port=control) as shop,
    ):
        yield shop


@pytest.fixture(autouse=True)
def _forgiven(shop: Shop) -> Iterator[None]:
    """Refused logins of one test are not counted in the next."""
    yield
    with shop.core.database.write() as connection:
        connection.exec_driver_sql("DELETE FROM console_failures")


def is_sent_to_log_in(answer: TestResponse) -> bool:
    return answer.status_code == 302 and "/console/login" in answer.headers["Location"]


def test_nobody_sees_a_page_without_a_login(shop: Shop) -> None:
    """Each page leads to the login, and remembers where it was going; a fragment is only refused."""
    guest = Visitor(shop)
    for path in PAGES:
        assert is_sent_to_log_in(guest.get(path))
        assert guest.get(path, headers={"X-Fragment": "yes"}).status_code == 401
    answer = guest.log_in(next="/console/payments?status=captured")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/console/payments?status=captured")


@pytest.mark.parametrize(
    "elsewhere",
    ["https://evil.example/console/", "//evil.example/console/", "/console//evil.example", "/v1/payments", "\\evil"],
)
def test_a_login_never_leads_elsewhere(shop: Shop, elsewhere: str) -> None:
    """The address to go on to is one of the console's own, or else its front page."""
    assert Visitor(shop).log_in(next=elsewhere).headers["Location"] == "/console/"
    assert "evil" not in Visitor(shop).get("/login", query_string={"next": elsewhere}).text


@pytest.mark.parametrize("word", ["", "wrong", "x" * 255, API_KEY.upper()])
def test_a_wrong_login_opens_nothing_and_is_not_repeated(shop: Shop, word: str) -> None:
    """401, with no session; neither page nor log says what was tried."""
    guest, before = Visitor(shop), LOG.tell()
    answer = guest.log_in(word)

    assert answer.status_code == 401
    assert guest.client.get_cookie("pointsman_session", path="/console") is None
    assert not word or (word not in answer.text and word not in LOG.getvalue()[before:])
    assert is_sent_to_log_in(guest.get("/now"))


def test_the_eleventh_wrong_login_is_not_looked_at(shop: Shop) -> None:
    """429, even for the right key."""
    guest = Visitor(shop)
    assert [guest.log_in("wrong").status_code for _ in range(10)] == [401] * 10
    answer = guest.log_in(API_KEY)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "600")


def test_the_session_is_for_this_browser_and_this_site_alone(shop: Shop) -> None:
    """HttpOnly, SameSite=Strict, only below /console, and Secure over https; never kept by a cache."""
    guest = Visitor(shop)
    header = guest.log_in().headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/console"} <= set(header.split("; "))
    assert "Secure" not in header
    guest.get("/login", base_url="https://shop.example")
    answer = guest.send("/login", {"word": API_KEY}, base_url="https://shop.example")
    assert "Secure" in answer.headers["Set-Cookie"].split("; ")
    assert visitor(shop).get("/now").headers["Cache-Control"] == "no-store"


def test_every_page_forbids_what_is_not_its_own(shop: Shop) -> None:
    """No inline script or style, nothing from elsewhere, no frame; and nothing inline is there to be allowed."""
    person = visitor(shop)
    pages = [person.get(path) for path in (*PAGES, "/login", "/nothing", "/static/console.css")]
    for page in pages:
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert "style-src 'self'" in policy or page.request.path.endswith("/reports")
        if page.content_type.startswith("text/html"):
            assert " style=" not in page.text
            assert " onclick=" not in page.text
            assert "<script>" not in page.text
            assert "//" not in page.text.replace("<!doctype", "")


def test_a_forged_or_ended_cookie_is_refused(shop: Shop) -> None:
    """A cookie changed in one letter, one of a session that was logged out, one planted before a login."""
    person = visitor(shop)
    good = person.cookie()
    for forged in (good[:-1] + ("0" if good[-1] != "0" else "1"), good.partition(".")[0], "x." + good, ""):
        thief = Visitor(shop)
        thief.client.set_cookie("pointsman_session", forged, path="/console")
        assert is_sent_to_log_in(thief.get("/now"))
    thief = Visitor(shop)
    thief.client.set_cookie("pointsman_session", good, path="/console")
    assert thief.get("/now").status_code == 200
    person.get("/now")
    assert person.send("/logout").status_code == 303
    assert is_sent_to_log_in(thief.get("/now"))

    victim = Visitor(shop)
    victim.client.set_cookie("pointsman_session", "planted.by-somebody", path="/console")
    victim.log_in()
    assert victim.cookie() != "planted.by-somebody"


def test_an_expired_session_and_a_revoked_keys_are_refused(shop: Shop) -> None:
    """On the server, whatever the cookie says."""
    shop.add_key("key-to-be-revoked", merchant="default", scopes=("operate",))
    old, revoked = visitor(shop), visitor(shop, "key-to-be-revoked")
    with shop.core.database.write() as connection:
        connection.exec_driver_sql("UPDATE api_keys SET revoked_at = 1 WHERE label = 'test'")
    assert is_sent_to_log_in(revoked.get("/now"))
    assert old.get("/now").status_code == 200
    with shop.core.database.write() as connection:
        connection.exec_driver_sql("UPDATE console_sessions SET expires_at = 1")
    assert is_sent_to_log_in(old.get("/now"))


def test_a_form_without_its_token_or_from_another_site_does_nothing(shop: Shop) -> None:
    """No token, another session's, one from another site: 403, and Stripe stays well; the same for the login."""
    person, other = visitor(shop), visitor(shop)
    other.get("/sandbox")
    for form in ({}, {"form_token": "0" * 64}, {"form_token": other.token}):
        answer = person.client.post("/console/sandbox/stripe", data={"mode": "down", **form})
        assert answer.status_code == 403
    person.get("/sandbox")
    answer = person.send("/sandbox/stripe", {"mode": "down"}, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert shop.control("GET", "/control/stripe")["mode"] == "ok"
    guest = Visitor(shop)
    assert guest.client.post("/console/login", data={"word": API_KEY}).status_code == 403
    first = Visitor(shop)
    first.get("/login")
    guest.get("/login")
    assert guest.client.post("/console/login", data={"word": API_KEY, "form_token": first.token}).status_code == 403


@pytest.mark.parametrize(
    ("scope", "seen"),
    [
        ("payments", {"/payments", "/sandbox"}),
        ("reports", {"/now", "/now/live", "/incidents", "/reports", "/settlements", "/flags"}),
        ("operate", set(PAGES) - {"/reports"}),
    ],
)
def test_a_scope_decides_what_is_seen_and_what_can_be_pressed(shop: Shop, scope: str, seen: set[str]) -> None:
    """Other pages are refused and not in the menu; so are buttons, pressed all the same."""
    shop.add_key(f"only-{scope}-{shop.url}", merchant="default", scopes=(scope,))
    person = visitor(shop, f"only-{scope}-{shop.url}")
    for path in PAGES:
        assert person.get(path).status_code == (200 if path in seen else 403), path
    front = person.get("", follow_redirects=True).text
    for path in PAGES:
        assert (f'href="/console{path}"' in front) == (path in seen and path != "/now/live"), path
    form = {"reason": "why not", "confirmed": "yes"}
    restored = person.send("/flips/flip_1/restore", form)
    assert restored.status_code == (404 if scope == "operate" else 403)
    assert person.send("/sandbox/stripe", {"mode": "ok"}).status_code == (303 if scope == "operate" else 403)
    ordered = person.send("/sandbox/order", {"goods": "coffee", "card": "visa"})
    assert ordered.status_code == (303 if scope == "payments" else 403)


def test_a_payment_is_shown_to_its_own_merchant_only(shop: Shop) -> None:
    """By its id and by its reference; to the other it does not exist."""
    shop.add_key("the-other-shop", merchant="other", scopes=("payments",))
    paid = shop.pay(reference="ORD-mine-alone").json or {}
    person, stranger = visitor(shop), visitor(shop, "the-other-shop")

    assert "ORD-mine-alone" in person.get(f"/payments/{paid['id']}").text
    assert stranger.get(f"/payments/{paid['id']}").status_code == 404
    assert stranger.get(f"/payments/{paid['id']}/live").status_code == 404
    for word in ("ORD-mine-alone", paid["id"], paid["attempts"][0]["id"], paid["attempts"][0]["provider_reference"]):
        link = f'href="/console/payments/{paid["id"]}"'
        assert link in person.get("/payments", query_string={"q": word}).text
        assert link not in stranger.get("/payments", query_string={"q": word}).text


def test_what_checkout_sent_is_text_and_never_markup(shop: Shop) -> None:
    """Reference, customer and metadata, in the list, on the page and in the search field."""
    paid = shop.pay(reference=EVIL[:80], metadata={EVIL[:40]: EVIL}, customer={"id": EVIL}).json or {}
    person = visitor(shop)
    for path in ("/payments", f"/payments/{paid['id']}", f"/payments/{paid['id']}/live", "/sandbox"):
        page = person.get(path).text
        assert "alert(1)" in page
        assert "<script>alert" not in page
        assert "<img" not in page
    searched = person.get(
        "/payments", query_string={"q": EVIL[:80], "provider": EVIL[:80], "from": "2026-01-01"}
    ).text
    assert "<script>alert" not in searched
    assert "<img" not in searched


def test_a_card_number_is_refused_and_not_repeated(shop: Shop) -> None:
    """In a search, in a form, in an address; on the page and in the log."""
    person, before = visitor(shop), LOG.tell()
    person.get("/sandbox")
    answers = [
        person.get("/payments", query_string={"q": PAN}),
        person.send("/flips/flip_1/restore", {"reason": PAN, "confirmed": "yes"}),
        person.get("/payments/" + PAN.replace(" ", "")),
        Visitor(shop).log_in(PAN),
    ]
    assert [each.status_code for each in answers] == [422] * 4
    for text in (*(each.text for each in answers), LOG.getvalue()[before:]):
        assert "4242" not in text


@pytest.mark.parametrize(
    ("path", "status", "field"),
    [
        ("/payments?status=stolen", 422, "status"),
        ("/payments?from=yesterday", 422, "from"),
        ("/payments?from=0001-01-01T00:00", 422, "from"),
        ("/payments?to=9999-12-31T23:59-10:00", 422, "to"),
        ("/payments?from=2026-11-21T14:00&to=2026-11-21T13:00", 422, "from"),
        ("/payments?q=" + "x" * 81, 422, "q"),
        ("/payments?cursor=%00", 422, "cursor"),
        ("/now?window=forever", 422, "window"),
        ("/reports?from=forever", 422, "from"),
        ("/reports?from=2026-11-21&to=2026-11-20", 422, "from"),
        ("/reports?group_by=stolen", 422, "group_by"),
        ("/reports?time_zone=stolen", 422, "time_zone"),
        ("/reports/file?format=stolen", 422, "format"),
        ("/reports/payments?figure=stolen", 422, "figure"),
        ("/settlements/settlement_999", 404, ""),
        ("/settlements/missing?provider=stolen", 422, "provider"),
        ("/settlements/missing?from=yesterday", 422, "from"),
        ("/settlements/missing?from=2026-11-21T14:00&to=2026-11-21T13:00", 422, "from"),
        ("/settlements/missing?cursor=stolen", 422, "cursor"),
        ("/payments/nothing", 404, ""),
        ("/incidents/inc_stripe_999", 404, ""),
        ("/flips/flip_999", 404, ""),
        ("/no/such/page", 404, ""),
    ],
)
def test_bad_input_gets_a_page_that_names_the_field_and_not_its_value(
    shop: Shop, path: str, status: int, field: str
) -> None:
    """HTML, in the console's own dress."""
    answer = visitor(shop).get(path)
    assert (answer.status_code, answer.content_type) == (status, "text/html; charset=utf-8")
    assert f"{field}: " in answer.text or not field
    assert not {"stolen", "yesterday", "forever", "xxxxxxxxx"} & set(answer.text.split())


def test_a_password_opens_every_page_and_ends_with_its_change(shop: Shop) -> None:
    """What `pointsman console password` keeps is known again; the old one's session is over with the new one."""
    store, now = ConsoleAccess(shop.core.database), shop.core.clock.now()
    store.set_password(Password("default", hashed("correct horse battery"), now))
    person = visitor(shop, "correct horse battery")
    assert all(person.get(path).status_code == 200 for path in PAGES)
    store.set_password(Password("default", hashed("another horse battery"), now))
    assert is_sent_to_log_in(person.get("/now"))
    assert Visitor(shop).log_in("correct horse battery").status_code == 401


def test_without_stand_ins_there_is_nothing_to_break(shop: Shop, sandbox: Sandbox, tmp_path: Path) -> None:
    """No page, no button, no tab, unless the settings say that the providers are ours to break."""
    with open_shop(shop.url, sandbox, tmp_path) as plain:
        person = visitor(plain)
        assert person.get("/sandbox").status_code == 404
        assert person.send("/sandbox/stripe", {"mode": "down"}).status_code == 404
        assert "/console/sandbox" not in person.get("/now").text


def test_a_login_is_a_small_form(shop: Shop) -> None:
    """Anybody may send one, and each is looked through for card numbers first."""
    guest = Visitor(shop)
    guest.get("/login")
    assert guest.send("/login", {"word": "4." * 10_000}).status_code == 413
    assert guest.send("/login", {"word": "wrong " * 1000}).status_code == 401
