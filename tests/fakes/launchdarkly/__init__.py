"""A stand-in LaunchDarkly over real sockets: the real SDK reads it, and our REST writer changes it."""

from tests.fakes.launchdarkly.server import FakeLaunchDarkly

__all__ = ["FakeLaunchDarkly"]
