"""The whole story of an increment: what it carries, each identifier and call, what was said of it, what comes next."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, TextClause, text

from billing.core.errors import InvalidValue
from billing.sinks.sync.increment import Attempt, Increment
from billing.sinks.sync.planning.drafts import Part
from billing.sinks.sync.postgres.rows import COLUMNS, increment_of
from billing.sinks.sync.telling.next_step import NextStep, next_step

#: Parts, attempts and reports that are shown (L9).
SHOWN_MAX: Final = 1_000
#: Increments have `bigint` numbers.
_ID_MAX: Final = 2**63 - 1

_INCREMENT: Final = text(f"SELECT {COLUMNS} FROM stripe_increment WHERE increment_id = :increment_id")  # noqa: S608 - columns of our own
_PARTS: Final = text("""
SELECT sku, hour, credits_from, credits_to FROM stripe_increment_part
WHERE increment_id = :increment_id ORDER BY hour, sku, credits_to LIMIT :most
""")
_GENERATIONS: Final = text("""
SELECT generation, identifier, kind, customer_id, period_start, period_end, event_at, reason, made_at
FROM stripe_generation WHERE increment_id = :increment_id ORDER BY generation LIMIT :most
""")
_ATTEMPTS: Final = text("""
SELECT increment_id, attempt, idempotency_key, started_at, finished_at, outcome, http_status, request_id, reason
FROM stripe_attempt WHERE increment_id = :increment_id ORDER BY attempt LIMIT :most
""")
_REPORTS: Final = text("""
SELECT event_id, code, count, window_start, window_end, noted_at
FROM stripe_error_report WHERE increments @> CAST(:as_json AS jsonb) ORDER BY window_end, event_id LIMIT :most
""")
_RESOLUTIONS: Final = text("""
SELECT generation, resolved_as, was, reason, resolved_at
FROM stripe_resolution WHERE increment_id = :increment_id ORDER BY resolved_at, generation LIMIT :most
""")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """One identifier under which the increment was, or is to be, sent. `reason`: why the one before was given up."""

    generation: int
    identifier: str
    kind: str
    customer_id: str
    period_start: datetime
    period_end: datetime
    event_at: datetime
    reason: str
    made_at: datetime


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What the sink reported of calls of this increment that it had answered."""

    event_id: str
    code: str
    count: int
    window_start: datetime
    window_end: datetime
    noted_at: datetime


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """What a person said of it, and the state that they found."""

    generation: int
    resolved_as: str
    was: str
    reason: str
    resolved_at: datetime


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Story:
    """An increment with all that is on record of it, each list the oldest first, and what happens next."""

    increment: Increment
    parts: tuple[Part, ...]
    generations: tuple[Generation, ...]
    attempts: tuple[Attempt, ...]
    reports: tuple[Report, ...]
    resolutions: tuple[Said, ...]
    next: NextStep

    @property
    def credits(self) -> int:
        """The credits that its units are."""
        return self.increment.units * self.increment.credits_per_unit


def read_story(connection: Connection, increment_id: int, now: datetime) -> Story:
    """Return the story of an increment as of `now`. Raises `InvalidValue` for one that is unknown."""
    given: dict[str, Any] = {"increment_id": increment_id, "most": SHOWN_MAX, "as_json": f"[{increment_id}]"}
    known = 0 < increment_id <= _ID_MAX
    found = connection.execute(_INCREMENT, given).mappings().one_or_none() if known else None
    if found is None:
        raise InvalidValue("increment", increment_id, "is not a known increment (see: billing sync status)")

    def rows(query: TextClause) -> list[dict[str, Any]]:
        return [dict(row) for row in connection.execute(query, given).mappings()]

    increment = increment_of(found)
    return Story(
        increment=increment,
        parts=tuple(Part(**row) for row in rows(_PARTS)),
        generations=tuple(Generation(**row) for row in rows(_GENERATIONS)),
        attempts=tuple(Attempt(**row) for row in rows(_ATTEMPTS)),
        reports=tuple(Report(**row) for row in rows(_REPORTS)),
        resolutions=tuple(Said(**row) for row in rows(_RESOLUTIONS)),
        next=next_step(increment, now),
    )
