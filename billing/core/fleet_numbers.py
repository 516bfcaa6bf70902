"""The numbers of a fleet that never change once clients exist, and the refusal of settings that would change them."""

from __future__ import annotations

from billing.core.errors import InvalidValue
from billing.core.settings import Settings


def check_numbers(settings: Settings, shards: int, usage_queues: int) -> None:
    """Raise `InvalidValue` if the settings differ from what the database remembers."""
    for key, given, stored in (
        ("billing_shards", settings.shards, shards),
        ("billing_usage_queues", settings.usage_queues, usage_queues),
    ):
        if given != stored:
            raise InvalidValue(key, given, f"must stay {stored}, as the database remembers: clients exist")
