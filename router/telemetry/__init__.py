"""Logs, reports to Sentry and traces, and the one scrubber that all three pass."""
