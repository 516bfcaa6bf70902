"""L9: whatever headers a delivery has, its waits are counted or refused, and a wait queue can take it once more."""

from __future__ import annotations

import json
from collections.abc import Iterator

from amqp.serialization import dumps

from billing.task.waits import (
    EXHAUSTED_SINCE,
    EXHAUSTED_WAITS,
    PREFIX,
    WAITS,
    level_of,
    read_waits,
    wait_seconds,
    without_waits,
)
from tests.fuzz.laws import as_json, hold, refusing
from tests.fuzz.target import Target

_NOW_MS: int = 1_795_305_600_000


def check(data: bytes) -> None:
    """Read the counts, count one wait of each kind, and take them off again."""
    headers = as_json(data)
    if not isinstance(headers, dict):
        return
    kept = without_waits(headers)
    hold(that=without_waits(kept) == kept, but=kept)
    hold(that=not {WAITS, EXHAUSTED_WAITS, EXHAUSTED_SINCE} & set(kept), but=kept)
    for death in kept.get("x-death", ()):
        hold(that=not str(death.get("queue", "")).startswith(PREFIX), but=death)
    with refusing():
        waits = read_waits(headers)
        hold(that=waits.exhausted <= waits.count and waits.exhausted_seconds(_NOW_MS) >= 0, but=waits)
        hold(that=level_of(wait_seconds(waits.count, 5.0, 0.5)) <= 60_000, but=waits)
        for more in (waits.once_unavailable(), waits.once_exhausted(_NOW_MS)):
            hold(that=read_waits(more.headers()) == more, but=more)
            dumps("F", (more.headers(),))


def seeds() -> Iterator[bytes]:
    """Yield a delivery that waited, one that RabbitMQ brought back, and one that others wrote on."""
    own = {"queue": f"{PREFIX}queue.celery.500", "exchange": "", "reason": "expired", "count": 3}
    other = {**own, "queue": "theirs"}
    for death in ([own], [own, other], [other], "own", [1, None, own], {"queue": "theirs"}, 5, None):
        first = {"x-first-death-queue": own["queue"], "x-first-death-reason": "expired"}
        yield json.dumps({WAITS: 2, EXHAUSTED_WAITS: 1, EXHAUSTED_SINCE: _NOW_MS, "x-death": death, **first}).encode()
    yield json.dumps({WAITS: "2", "x-last-death-queue": 5}).encode()


TARGET = Target(
    check=check, seeds=seeds, words=tuple(f'"{name}":'.encode() for name in (WAITS, EXHAUSTED_WAITS, "x-death"))
)
