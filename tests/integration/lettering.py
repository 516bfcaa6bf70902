"""What the tests of dead letters share: letters of every kind, and a look at what is kept of them."""

from __future__ import annotations

from typing import Any

import msgspec

from billing import admin
from billing.core.settings import Settings
from billing.events.usage_event import UsageEvent
from billing.fulfillment.delivery import Delivered, Poison
from tests.integration.consuming import query, usage_log
from tests.usage_events import QUEUE, paid_line, usage_event


def charge(client_id: str, credits_: int = 10, *, epoch: int = 0, task_id: str | None = None) -> UsageEvent:
    """Return an event that no bucket has paid (epoch 0), or that one of an epoch has."""
    return usage_event(client_id, task_id, [paid_line(shares=[(0 if epoch == 0 else 1, credits_)])], epoch=epoch)


def body_of(event: UsageEvent) -> bytes:
    """Return the bytes that carry it."""
    return msgspec.json.encode(event)


def refuse(settings: Settings, *bodies: bytes, reason: str = "an older version did not know it") -> list[int]:
    """Have the log refuse messages, in one batch; return their letters' ids in the order of the messages."""
    log = usage_log(settings)
    log.write([Delivered(body=body, queue=QUEUE, decoded=Poison(reason=reason)) for body in bodies])
    log.close()
    found = {bytes(body): letter_id for letter_id, body in query(settings, "SELECT letter_id, body FROM dead_letter")}
    return [found[body] for body in bodies]


def states(settings: Settings) -> dict[int, tuple[str, int]]:
    """Return each letter's state, and how often it was refused."""
    found = query(settings, "SELECT letter_id, state, refusals FROM dead_letter")
    return {letter_id: (state, refusals) for letter_id, state, refusals in found}


def kept(settings: Settings) -> list[tuple[Any, ...]]:
    """Return what may never change of letters."""
    return query(settings, "SELECT letter_id, digest, body, queue, received_at FROM dead_letter ORDER BY letter_id")


def outcomes(replay: admin.Replay) -> list[tuple[int, str]]:
    """Return what became of each letter."""
    return [(letter.letter_id, letter.outcome) for letter in replay.letters]
