"""The table `law_check`: how each law's last check came out, and the one alert when a law holds no more.

Row and alert are one transaction, under the row's lock: of any number of checks at once one tells the crossing.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from billing.connections import postgres
from billing.observability.laws.law import Checked, Found, is_crossing
from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)

#: The first check of a law makes its row, so that there is one to lock.
_MAKE: Final = text("""
INSERT INTO law_check (law, checked_at, examined, violations) VALUES (:law, 'epoch', 0, 0) ON CONFLICT DO NOTHING
""")
_COLUMNS: Final = "law, checked_at, examined, violations, found, resume_after, remembered"
_LOCKED: Final = text(f"SELECT {_COLUMNS} FROM law_check WHERE law = :law FOR UPDATE")  # noqa: S608 - columns of our own
_READ: Final = text(f"SELECT {_COLUMNS} FROM law_check ORDER BY law")  # noqa: S608 - see above
_WRITE: Final = text("""
UPDATE law_check SET checked_at = :checked_at, examined = :examined, violations = :violations, found = :found,
    resume_after = :resume_after, remembered = CAST(:remembered AS jsonb)
WHERE law = :law
""")
#: Tell it. The operator is whom it concerns: no client is named, and no webhook is told.
_TELL: Final = text("""
INSERT INTO alert (client_id, kind, threshold_percent, available, granted, source, occurred_at, delivery, found)
VALUES ('', 'law_broken', 0, 0, 0, 'law:' || :law || ':' || :at, :checked_at, 'none', :law || ': ' || :found)
ON CONFLICT (source) DO NOTHING
""")


def read(connection: Connection) -> dict[str, Checked]:
    """Return the last check of each law that was ever checked, by its name."""
    return {row.law: _checked(row) for row in connection.execute(_READ)}


def write(runtime: Runtime, law: str, change: Callable[[Checked | None], Checked | None]) -> Checked | None:
    """Have a law's row become what `change` makes of it (None: it stays); tell it where the law is newly broken."""
    with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
        connection.execute(_MAKE, {"law": law})
        row = connection.execute(_LOCKED, {"law": law}).one()
        before = _checked(row) if row.checked_at.year > _NEVER else None
        now = change(before)
        if now is None:
            return None  # and the row that was made for it is not kept
        connection.execute(_WRITE, _columns(now))
        crossing = is_crossing(before, now)
        if crossing:
            given = {"law": law, "at": now.checked_at.isoformat(), "checked_at": now.checked_at, "found": now.found}
            connection.execute(_TELL, given)
        connection.commit()
    if crossing:
        logger.error("billing: %s: %d violations: %s", law, now.violations, now.found)
    return now


#: The year of the row of a law that was never checked.
_NEVER: Final = 1970
_ROUND: Final = "round"


def _checked(row: Row[Any]) -> Checked:
    remembered = dict(row.remembered)
    so_far, last_round = (Found(**found) for found in remembered.pop(_ROUND, ({}, {})))
    return Checked(
        law=row.law,
        checked_at=row.checked_at,
        examined=row.examined,
        violations=row.violations,
        found=row.found,
        resume_after=row.resume_after,
        remembered=remembered,
        so_far=so_far,
        last_round=last_round,
    )


def _columns(checked: Checked) -> dict[str, object]:
    remembered = dict(checked.remembered)
    if checked.so_far.violations or checked.last_round.violations:
        remembered[_ROUND] = [dataclasses.asdict(checked.so_far), dataclasses.asdict(checked.last_round)]
    return {
        "law": checked.law,
        "checked_at": checked.checked_at,
        "examined": checked.examined,
        "violations": checked.violations,
        "found": checked.found,
        "resume_after": checked.resume_after,
        "remembered": json.dumps(remembered),
    }
