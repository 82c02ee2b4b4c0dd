"""The WSGI entry point: `granian --interface wsgi wsgi:app`, `gunicorn wsgi:app`, with `--preload` or without.

Under `--preload` each worker builds its application with its first request; a load balancer's look at /readyz will
do.
"""

from __future__ import annotations

from router.app import create_app
from router.preforked import PerProcess, is_gunicorn_master

app = PerProcess(create_app, now=not is_gunicorn_master())
