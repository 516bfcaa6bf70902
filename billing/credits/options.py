"""The bounds of buckets as the settings say them, the same for those in Redis and for the twin. Pure."""

from __future__ import annotations

from typing import TypedDict

from billing.core.settings import Settings


class Options(TypedDict):
    """What `Buckets` and `Twin` are made with, besides what keeps them."""

    shards: int
    lease_seconds: float
    settled_retention_seconds: float
    outbox_entries_max: int
    alert_percents: tuple[int, ...]


def options_of(settings: Settings) -> Options:
    """Return the options that these settings say."""
    return Options(
        shards=settings.shards,
        lease_seconds=settings.lease_seconds,
        settled_retention_seconds=settings.settled_retention_seconds,
        outbox_entries_max=settings.outbox_entries_max,
        alert_percents=settings.alert_percents,
    )
