"""The WSGI entry point: `granian --interface wsgi wsgi:app`, `gunicorn wsgi:app` (without --preload)."""

from __future__ import annotations

from router.app import create_app

app = create_app()
