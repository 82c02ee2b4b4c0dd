"""Who may come in: keys, passwords, cookies that were not made here, sessions that are over."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field

import pytest

from router.clock import ManualClock
from router.console import passwords
from router.console.access import FAILURES_OF_ALL, FAILURES_OF_ONE, Access, RefusedError, TooManyError
from router.ledger.console_access import Failures, Password, Session
from router.ledger.keys import Caller, digest
from router.ledger.unavailable import LedgerUnavailableError

LASTS = dt.timedelta(hours=1)
WORD = "correct horse battery"
KEY = "a-key-with-one-scope"


@dataclass
class Store:
    """The ledger's part, in memory; the real one is in the integration tests."""

    sessions: dict[str, Session] = field(default_factory=dict)
    kept: list[Password] = field(default_factory=list)
    failed_at: list[tuple[str, dt.datetime]] = field(default_factory=list)
    revoked: set[str] = field(default_factory=set)
    is_away: bool = False

    def begin(self, session: Session, *, instead_of: str | None) -> None:
        self.sessions.pop(instead_of or "", None)
        self.sessions[session.digest] = session

    def find(self, of: str, now: dt.datetime) -> Session | None:
        if self.is_away:
            raise LedgerUnavailableError("away")
        found = self.sessions.get(of)
        return found if found and found.expires_at > now and found.credential not in self.revoked else None

    def end(self, of: str) -> None:
        self.sessions.pop(of, None)

    def passwords(self) -> list[Password]:
        return self.kept

    def failures(self, origin: str, since: dt.datetime) -> Failures:
        recent = [each for each, at in self.failed_at if at > since]
        return Failures(recent.count(origin), len(recent))

    def failed(self, origin: str, now: dt.datetime, *, forget_before: dt.datetime) -> None:
        self.failed_at.append((origin, now))

    def forgive(self, origin: str) -> None:
        self.failed_at = [each for each in self.failed_at if each[0] != origin]

    def find_key(self, key: str) -> Caller | None:
        return Caller("shop", frozenset({"reports"}), "finance") if key == KEY else None


@dataclass
class Keys:
    store: Store

    def find(self, key: str, now: dt.datetime | None = None) -> Caller | None:
        assert now is not None  # else one that has expired would open a session
        return self.store.find_key(key)


@dataclass
class Door:
    """Access over a store, with a clock."""

    store: Store = field(default_factory=Store)
    clock: ManualClock = field(default_factory=ManualClock)

    def access(self, *, secret: str = "s" * 32, bootstrap: str | None = "bootstrap") -> Access:
        return Access(
            self.store,  # type: ignore[arg-type]  # the queries that it uses, in memory
            Keys(self.store),  # type: ignore[arg-type]  # the same
            secret=secret,
            bootstrap=bootstrap,
            lasts=LASTS,
            clock=self.clock,
        )


@pytest.fixture(scope="module")
def kept() -> str:
    """The password's hash: a tenth of a second, once."""
    return passwords.hashed(WORD, salt=b"0" * 16)


def test_a_key_opens_a_session_with_its_scopes_and_the_cookie_is_the_session() -> None:
    """Merchant, scopes and label are the key's; the store never sees the cookie's secret."""
    door = Door()
    access = door.access()
    session, cookie = access.log_in(KEY, origin="1.2.3.4", cookie=None)

    assert (session.merchant, session.scopes, session.label) == ("shop", frozenset({"reports"}), "finance")
    assert access.session(cookie) == session
    assert cookie.partition(".")[0] not in str(door.store)
    assert session.credential == f"key:{digest(KEY)}"


@pytest.mark.parametrize("word", ["", "wrong", KEY + "x", "bootstrap "])
def test_a_wrong_word_opens_nothing(word: str) -> None:
    """It is counted, and no session is made."""
    door = Door()
    with pytest.raises(RefusedError):
        door.access().log_in(word, origin="1.2.3.4", cookie=None)

    assert door.store.sessions == {}
    assert len(door.store.failed_at) == 1


def test_a_cookie_that_was_not_signed_here_is_refused_before_the_store_is_asked() -> None:
    """Forged, cut, empty, or signed with another secret: None, even with the store away."""
    door = Door()
    access = door.access()
    session, cookie = access.log_in(KEY, origin="1.2.3.4", cookie=None)
    _, elsewhere = door.access(secret="t" * 32).log_in(KEY, origin="1.2.3.4", cookie=None)
    token, _, signature = cookie.partition(".")
    door.store.is_away = True

    for forged in (None, "", ".", token, token + ".", f"{token}.{signature[:-1]}0x", f"x.{signature}", elsewhere):
        assert access.session(forged) is None
    assert session.digest in door.store.sessions


def test_a_login_always_makes_a_new_cookie_and_ends_the_session_before() -> None:
    """A cookie that somebody planted before the login is worth nothing after it."""
    access = Door().access()
    _, planted = access.log_in(KEY, origin="1.2.3.4", cookie=None)
    _, own = access.log_in("bootstrap", origin="1.2.3.4", cookie=planted)

    assert own != planted
    assert access.session(planted) is None
    assert access.session(own) is not None


def test_a_session_ends_by_time_by_logging_out_and_with_its_credential(kept: str) -> None:
    """An hour; a logout; a revoked key; a bootstrap key that was changed; a password that was changed."""
    door = Door()
    door.store.kept = [Password("default", kept, door.clock.now())]
    access = door.access()
    by_key, by_bootstrap, by_password, again = (
        access.log_in(word, origin="1.2.3.4", cookie=None) for word in (KEY, "bootstrap", WORD, KEY)
    )
    assert by_password[0].scopes == {"payments", "reports", "operate"}
    assert all(access.session(each[1]) for each in (by_key, by_bootstrap, by_password, again))

    access.log_out(again[0])
    assert access.session(again[1]) is None
    door.store.kept = [Password("default", "scrypt$other", door.clock.now())]
    assert access.session(by_password[1]) is None
    assert door.access(bootstrap="another").session(by_bootstrap[1]) is None
    door.store.revoked.add(by_key[0].credential)
    assert access.session(by_key[1]) is None
    door.clock.advance(LASTS.total_seconds() - 1)
    assert access.session(by_bootstrap[1]) is not None
    door.clock.advance(1)
    assert access.session(by_bootstrap[1]) is None


def test_while_the_ledger_is_away_only_sessions_that_were_seen_go_on_and_not_for_long() -> None:
    """A quarter of an hour; one that was not seen cannot be told from one that was ended."""
    door = Door()
    access = door.access()
    _, seen = access.log_in(KEY, origin="1.2.3.4", cookie=None)
    _, unseen = access.log_in(KEY, origin="1.2.3.4", cookie=None)
    access.session(seen)
    door.store.is_away = True

    assert access.session(seen) is not None
    with pytest.raises(LedgerUnavailableError):
        access.session(unseen)
    door.clock.advance(901)
    with pytest.raises(LedgerUnavailableError):
        access.session(seen)


def test_after_ten_wrong_words_an_address_waits_even_with_the_right_one(kept: str) -> None:
    """Another address does not; ten minutes later nobody does; the password in between forgives."""
    door = Door()
    door.store.kept = [Password("default", kept, door.clock.now())]
    access = door.access()
    for _ in range(2):
        door.store.failed_at = [("another", door.clock.now())]
        for _ in range(FAILURES_OF_ONE - 1):
            with pytest.raises(RefusedError):
                access.log_in("x" * 201, origin="1.2.3.4", cookie=None)
        access.log_in(WORD, origin="1.2.3.4", cookie=None)
    for _ in range(FAILURES_OF_ONE):
        with pytest.raises(RefusedError):
            access.log_in("x" * 201, origin="1.2.3.4", cookie=None)

    for word in (WORD, "bootstrap"):
        with pytest.raises(TooManyError):
            access.log_in(word, origin="1.2.3.4", cookie=None)
    access.log_in(WORD, origin="5.6.7.8", cookie=None)
    door.clock.advance(601)
    access.log_in(WORD, origin="1.2.3.4", cookie=None)


def test_wrong_words_of_others_keep_nobody_with_a_key_of_the_ledger_out() -> None:
    """Behind a proxy all have one address: a stranger's ten tries must not close the console in an outage."""
    door = Door()
    access = door.access()
    for _ in range(FAILURES_OF_ONE):
        with pytest.raises(RefusedError):
            access.log_in("wrong", origin="the proxy", cookie=None)
    assert access.log_in(KEY, origin="the proxy", cookie=None)


def test_a_key_of_few_scopes_does_not_buy_more_guesses_of_the_password() -> None:
    """Logged in between, as often as one likes: the eleventh guess is not looked at all the same."""
    door = Door()
    access = door.access()
    for _ in range(FAILURES_OF_ONE):
        with pytest.raises(RefusedError):
            access.log_in("wrong", origin="1.2.3.4", cookie=None)
        access.log_in(KEY, origin="1.2.3.4", cookie=None)
    with pytest.raises(TooManyError):
        access.log_in("wrong", origin="1.2.3.4", cookie=None)


def test_many_addresses_together_end_guessing_passwords_and_keep_nobody_with_a_key_out(kept: str) -> None:
    """A hundred refusals from a hundred addresses: no password is tried any more, a key opens."""
    door = Door()
    door.store.kept = [Password("default", kept, door.clock.now())]
    access = door.access()
    door.store.failed_at = [(f"origin-{number}", door.clock.now()) for number in range(FAILURES_OF_ALL)]

    with pytest.raises(TooManyError):
        access.log_in(WORD, origin="9.9.9.9", cookie=None)
    assert access.log_in(KEY, origin="9.9.9.9", cookie=None)


def test_a_form_token_is_one_sessions_only() -> None:
    """Another session's, a session's cookie signature, or nothing: refused."""
    access = Door().access()
    mine, cookie = access.log_in(KEY, origin="1.2.3.4", cookie=None)
    other, _ = access.log_in(KEY, origin="1.2.3.4", cookie=None)

    assert access.is_form_token(access.form_token(mine.digest), mine.digest)
    for wrong in ("", "ü", access.form_token(other.digest), cookie.partition(".")[2]):
        assert not access.is_form_token(wrong, mine.digest)


@pytest.mark.parametrize("weak", ["", "short", "a" * 20, "abcd" * 5, "x" * 201])
def test_a_weak_password_is_refused_without_an_echo(weak: str) -> None:
    """Too short, too long, too few different characters."""
    with pytest.raises(passwords.WeakPasswordError) as refused:
        passwords.hashed(weak)
    assert not weak or weak not in str(refused.value)


def test_a_password_is_known_again_and_no_other_one(kept: str) -> None:
    """Two hashes of one password differ by their salt; what is no hash of ours opens nothing."""
    assert passwords.is_right(WORD, kept)
    assert not passwords.is_right(WORD + ".", kept)
    assert passwords.hashed(WORD) != kept
    for broken in ("", "scrypt$15$8$1$x", "plain$15$8$2$MDA=$MDA=", "scrypt$a$b$c$d$e", WORD):
        assert not passwords.is_right(WORD, broken)
