"""The WSGI entry point: `granian --interface wsgi wsgi:app`, `gunicorn wsgi:app`, with `--preload` or without.

Under `--preload` each worker builds its application with its first request; a load balancer's look at /readyz will
do.
"""

from __future__ import annotations

from router.app.web import create_app
from router.clock import SystemClock
from router.fee_book import fee_book
from router.preforked import PerProcess, is_gunicorn_master
from router.settings import load_settings

settings = load_settings()  # a wrong one stops the start, whoever builds the application when
fee_book(settings, SystemClock().now().date())
app = PerProcess(lambda: create_app(settings), now=not is_gunicorn_master())
