"""Logging in: an API key or a password becomes a session, within limits; a cookie becomes the session again.

The cookie is `<secret>.<signature>`: what was not signed here is refused before the ledger is asked. The ledger keeps
the secret's digest, so a session can be ended on the server, and a stolen ledger opens none.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import secrets
import threading
from dataclasses import dataclass

from router.clock import Clock
from router.console import passwords
from router.ledger.console_access import KEY, ConsoleAccess, Session
from router.ledger.keys import SCOPES, Caller, KeyLedger, digest
from router.ledger.unavailable import LedgerUnavailableError

FAILURES_COUNT_FOR = dt.timedelta(minutes=10)
FAILURES_OF_ONE = 10
"""Refused logins of one address in that time, until no further password, nor bootstrap key, of it is looked at.

A key of the ledger always is: behind a proxy one address is everybody's, and a stranger's guesses must not lock
people out in an outage."""
FAILURES_OF_ALL = 100
"""The same of all addresses, for passwords alone: 100 guesses in ten minutes are 5 million a year, of a password of
twelve characters. A key of the ledger, of 192 random bits, needs no limit: nobody can lock a person with one out."""
GUESSES_AT_ONCE = 2
"""32 MiB each."""
KNOWN_WHILE_AWAY_S = 900.0
"""How long a session that was found is believed while the ledger cannot be asked: in that hour people look."""
KNOWN_SESSIONS = 1000
COOKIE_BYTES = 32


class RefusedError(Exception):
    """The login is refused; the message is for the page, and does not say which part was wrong."""


class TooManyError(RefusedError):
    """Too many logins were refused before this one: it was not looked at."""


@dataclass(frozen=True, slots=True)
class _Known:
    session: Session
    answered_at: float


class Access:
    """Sessions of the console. Thread-safe."""

    def __init__(
        self,
        store: ConsoleAccess,
        keys: KeyLedger,
        *,
        secret: str,
        bootstrap: str | None,
        lasts: dt.timedelta,
        clock: Clock,
    ) -> None:
        self._store = store
        self._keys = keys
        self._secret = secret.encode()
        self._bootstrap = bootstrap
        self._lasts = lasts
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._lock = threading.Lock()
        self._guesses = threading.BoundedSemaphore(GUESSES_AT_ONCE)

    # ------------------------------------------------------------ logging in

    def log_in(self, word: str, *, origin: str, cookie: str | None) -> tuple[Session, str]:
        """The session that a key or a password opens, and its cookie; whatever session `cookie` was of is over.

        The cookie is always a new one: none that somebody else has put into a browser ever becomes a session.
        Raises RefusedError, LedgerUnavailableError.
        """
        now = self._clock.now()
        of = hashlib.sha256(self._secret + origin.encode()).hexdigest()[:32]
        failures = self._store.failures(of, now - FAILURES_COUNT_FOR)
        found = self._by_key(word)
        if found is None and failures.of_origin >= FAILURES_OF_ONE:
            raise TooManyError("Too many tries. Wait ten minutes, or use an API key of the ledger.")
        if found is None:
            found = self._by_bootstrap(word)
            found = found or self._by_password(word, guessing=failures.in_all < FAILURES_OF_ALL)
            if found is None:
                self._store.failed(of, now, forget_before=now - FAILURES_COUNT_FOR)
                raise RefusedError("This is neither a valid API key nor the password.")
            if failures.of_origin:
                # Never for a key of few scopes: whoever has one could guess the password for as long as it takes.
                self._store.forgive(of)
        caller, credential = found
        token = secrets.token_urlsafe(COOKIE_BYTES)
        session = Session(
            digest=digest(token),
            credential=credential,
            merchant=caller.merchant,
            scopes=caller.scopes,
            label=caller.label or "a key without a label",
            created_at=now,
            expires_at=now + self._lasts,
        )
        self._store.begin(session, instead_of=self._digest_of(cookie))
        return session, f"{token}.{self._sign('session', token)}"

    def _by_key(self, word: str) -> tuple[Caller, str] | None:
        caller = self._keys.find(word, self._clock.now())
        return None if caller is None else (caller, f"{KEY}:{digest(word)}")

    def _by_bootstrap(self, word: str) -> tuple[Caller, str] | None:
        # Somebody may have chosen it, so it is limited as a password is.
        of = digest(word)
        return (Caller("default", SCOPES, "bootstrap key"), f"bootstrap:{of}") if self._is_bootstrap(of) else None

    def _by_password(self, word: str, *, guessing: bool) -> tuple[Caller, str] | None:
        for kept in self._store.passwords():
            if not guessing:
                raise TooManyError("Too many tries. Wait ten minutes, or use an API key.")
            if not self._guesses.acquire(timeout=5):
                raise TooManyError("Too many tries at this moment.")
            try:
                if passwords.is_right(word, kept.hash):
                    return Caller(kept.merchant, SCOPES, "password"), f"password:{digest(kept.hash)}"
            finally:
                self._guesses.release()
        return None

    def _is_bootstrap(self, of: str) -> bool:
        return self._bootstrap is not None and hmac.compare_digest(of, digest(self._bootstrap))

    # ------------------------------------------------------------ being logged in

    def session(self, cookie: str | None) -> Session | None:
        """Whose cookie this is; None for one that is forged, expired, ended, or whose credential is gone.

        Raises LedgerUnavailableError where the ledger cannot be asked and this process has not seen it lately.
        """
        of = self._digest_of(cookie)
        if of is None:
            return None
        now = self._clock.now()
        try:
            session = self._store.find(of, now)
            if session is not None and not self._still_opens(session.credential):
                session = None
        except LedgerUnavailableError:
            known = self._known.get(of)
            if known is None or self._clock.monotonic() - known.answered_at > KNOWN_WHILE_AWAY_S:
                raise
            return known.session if known.session.expires_at > now else None
        with self._lock:
            if session is None:
                self._known.pop(of, None)
            else:
                if len(self._known) >= KNOWN_SESSIONS:
                    self._known.clear()
                self._known[of] = _Known(session, self._clock.monotonic())
        return session

    def _still_opens(self, credential: str) -> bool:
        kind, _, of = credential.partition(":")
        if kind == "bootstrap":
            return self._is_bootstrap(of)
        if kind == "password":
            return any(digest(each.hash) == of for each in self._store.passwords())
        return kind == KEY  # the ledger has looked at it

    def log_out(self, session: Session) -> None:
        """End it, here and on every other process. Raises LedgerUnavailableError."""
        self._store.end(session.digest)
        with self._lock:
            self._known.pop(session.digest, None)

    # ------------------------------------------------------------ forms

    def form_token(self, of: str) -> str:
        """What a form must bring back: of a session's digest, or of the login page's own cookie."""
        return self._sign("form", of)

    def is_form_token(self, token: str, of: str) -> bool:
        """Whether this is that token."""
        return hmac.compare_digest(token.encode(), self._sign("form", of).encode())

    def _digest_of(self, cookie: str | None) -> str | None:
        token, dot, signature = (cookie or "").partition(".")
        if not dot or not hmac.compare_digest(signature.encode(), self._sign("session", token).encode()):
            return None
        return digest(token)

    def _sign(self, kind: str, word: str) -> str:
        return hmac.new(self._secret, f"{kind}:{word}".encode(), hashlib.sha256).hexdigest()
