"""L7 append only: what nobody may change refuses every change, and no month of the log has fewer rows than it had.

The rows of every month, the archive's too, are counted a slice at a time, along the key. Rows only come, so that no
count is above a later one: a smaller one says that somebody took the trigger away, and rows with it. The larger count
is kept: the law stays broken until the rows are back, or an operator has it forgotten.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, text

from billing.connections import postgres
from billing.observability.laws.law import Place, Slice
from billing.schema.guards import unguarded
from billing.task.runtime import Runtime

#: Rows that one statement goes over (L9).
ROWS_MAX: Final = 200_000

#: The parts in their order. What was moved by hand is in neither place: it is not counted until it is back.
_PARTS: Final = text("""
SELECT name, place, coalesce(first_id, '00000000-0000-0000-0000-000000000000') AS first_id, end_id
FROM usage_partition ORDER BY first_id NULLS FIRST, name
""")
_WITHIN: Final = """
FROM usage_ever WHERE run_id >= :after_run AND (run_id, line) > (:after_run, :after_line)
    AND run_id <= coalesce(CAST(:end AS uuid), 'ffffffff-ffff-ffff-ffff-ffffffffffff')
    AND (CAST(:end AS uuid) IS NULL OR run_id < CAST(:end AS uuid))
"""
_FAR: Final = text(f"SELECT run_id, line {_WITHIN} ORDER BY run_id, line OFFSET :rows - 1 LIMIT 1")
_REST: Final = text(f"SELECT count(*) {_WITHIN}")


class AppendOnly:
    """The triggers at each check; the rows part by part, going on where the last check ended."""

    name: Final = "L7 append only"

    def check(self, runtime: Runtime, place: Place) -> Slice:
        """Look at the triggers, and count the next rows. Raises `Unreachable`."""
        with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
            open_ = unguarded(connection)
            parts = connection.execute(_PARTS).all()
            connection.rollback()
            count = _Count(connection, place)
            began = count.begin(parts)
            for part in parts[began:]:
                while part.place in ("history", "archive") and not count.step(part):
                    if runtime.clock.monotonic() >= place.until:
                        return self._slice(count, open_, [])
                if runtime.clock.monotonic() >= place.until and part is not parts[-1]:
                    count.resume_after = parts[parts.index(part) + 1].name
                    return self._slice(count, open_, [])
            return self._slice(count, open_, count.end([part.name for part in parts]))

    def _slice(self, count: _Count, open_: Sequence[str], gone: Sequence[str]) -> Slice:
        found = [*count.found, *gone]
        listed = ", ".join(open_[:_NAMED_MAX])
        return Slice(
            examined=count.examined,
            violations=len(found),
            found="; ".join(found[:_NAMED_MAX]),
            at_once=len(open_),
            found_at_once=f"may be changed, their trigger is missing or off: {listed}" if open_ else "",
            resume_after=count.resume_after,
            remembered={"rows": count.known, "counted": count.counted},
        )


#: Parts that are named (L9).
_NAMED_MAX: Final = 5


class _Count:
    """Where the counting is, and how many rows each part had."""

    def __init__(self, connection: Connection, place: Place) -> None:
        self._connection = connection
        #: The most rows that each part was ever counted to have.
        self.known: dict[str, int] = dict(place.remembered.get("rows", {}))
        #: Rows of the part that is being counted, up to `resume_after`.
        self.counted = int(place.remembered.get("counted", 0)) if place.resume_after else 0
        self.resume_after = place.resume_after
        self.found: list[str] = []
        self.examined = 0

    def begin(self, parts: Sequence[Any]) -> int:
        """Return the index of the part to go on with; a part that is gone meanwhile is begun with the next one."""
        name = self.resume_after.partition(" ")[0]
        names = [part.name for part in parts]
        if name in names:
            return names.index(name)
        self.resume_after, self.counted = "", 0
        return 0

    def step(self, part: Any) -> bool:
        """Count the next rows of a part; return whether that was the last of it."""
        after_run, after_line = uuid.UUID(str(part.first_id)), -1
        name, _, reached = self.resume_after.partition(" ")
        if name == part.name and reached:
            run, line = reached.split(" ")
            after_run, after_line = uuid.UUID(run), int(line)
        given = {"after_run": after_run, "after_line": after_line, "end": part.end_id}
        far = self._connection.execute(_FAR, {**given, "rows": ROWS_MAX}).one_or_none()
        rows = ROWS_MAX if far else int(self._connection.execute(_REST, given).scalar_one())
        self._connection.rollback()
        self.counted, self.examined = self.counted + rows, self.examined + rows
        if far is not None:
            self.resume_after = f"{part.name} {far.run_id} {far.line}"
            return False
        known = self.known.get(part.name, 0)
        if self.counted < known:
            self.found.append(f"{part.name} has {self.counted:,} rows, and had {known:,}")
        self.known[part.name] = max(known, self.counted)
        # A part of no rows need not be remembered.
        self.known = {name: count for name, count in self.known.items() if count}
        self.resume_after, self.counted = "", 0
        return True

    def end(self, names: Sequence[str]) -> list[str]:
        """Return what is missing at the end of a round."""
        return [f"{name} is gone, and had {rows:,} rows" for name, rows in self.known.items() if name not in names]
