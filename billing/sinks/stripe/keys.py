"""Whose books a key counts in. What was attempted in one is neither sent again to another nor looked for there."""

from __future__ import annotations

from enum import Enum

from billing.core.settings import Settings


class KeyKind(Enum):
    """Whose money the key moves. The value is `stripe_increment.sent_to`."""

    STAND_IN = "stand-in"
    TEST = "test"
    LIVE = "live"


def key_kind(settings: Settings) -> KeyKind:
    """Return which kind of key the settings hold. A key that is rolled stays of its kind."""
    key = settings.stripe_api_key
    if not key:
        return KeyKind.STAND_IN
    return KeyKind.LIVE if "_live_" in key[:8] else KeyKind.TEST
