"""Walks over all clients once more for what is not cheap: their rollups' sums against what their grants have paid.

A client has a rollup row for each SKU and hour, so that this walk has a pace of its own: slices shrink until they are
short, and buckets never wait for it. Only of a client that differs is the log itself read, to name the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy
from sqlalchemy import ARRAY, Text, bindparam, text

from billing.reconciliation import reading
from billing.reconciliation.continuous import statements
from billing.reconciliation.continuous.docket import Docket
from billing.reconciliation.laws import sums
from billing.reconciliation.report import ROWS_MAX, Discrepancy, Law
from billing.task.runtime import Runtime

#: A slice that takes longer than the first makes the next one smaller, to a minimum (a busy machine is slow as well);
#: one that takes less than the second makes it larger.
_LONG_SECONDS, _SHORT_SECONDS = 0.2, 0.05
TOO_LONG = "its rollups take too long to add up"
_SLICE_MAX, _SLICE_MIN = 1_000, 100


class Sums:
    """The next slice of sums, and the next."""

    def __init__(self, runtime: Runtime, engine: sqlalchemy.Engine, docket: Docket) -> None:
        self._runtime, self._engine, self._docket = runtime, engine, docket
        self._size = 2 * _SLICE_MIN
        self._after = ""
        self.clients = 0

    def slice(self) -> bool:
        """Compare the next clients; return False after the last one."""
        clock, began = self._runtime.clock, self._runtime.clock.monotonic()
        with reading.snapshot(self._runtime.settings, self._engine) as connection:
            ids = reading.page(connection, after=self._after, limit=self._size, only=None)
        if not ids:
            self._after, self.clients = "", 0
            return False
        try:
            self._compare(ids)
        except reading.TooLong:
            if len(ids) > 1:
                self._size = max(1, len(ids) // 8)
                return True
            # One client's long history keeps no other from being compared (L10).
            self._docket.missed.missed(ids[0], Law.SUMS.value, TOO_LONG)
        self._after, self.clients = ids[-1], self.clients + len(ids)
        took = clock.monotonic() - began
        if took > _LONG_SECONDS:
            self._size = max(min(self._size, _SLICE_MIN), self._size // 2)
        elif took < _SHORT_SECONDS:
            self._size = min(_SLICE_MAX, self._size * 2)
        return True

    def _compare(self, ids: list[str]) -> None:
        query = text(statements.DIFFERING_SUMS).bindparams(bindparam("ids", type_=ARRAY(Text)))
        with reading.snapshot(self._runtime.settings, self._engine) as connection:
            differing = {row.client_id: row for row in connection.execute(query, {"ids": ids})}
        for client_id in ids:
            row = differing.get(client_id)
            found = [] if row is None else [self._discrepancy(client_id, row.rolled, row.spent)]
            self._docket.judge(client_id, (Law.SUMS,), found)

    def _discrepancy(self, client_id: str, rolled: int, spent: int) -> Discrepancy:
        rows: list[Mapping[str, Any]] = []
        if not self._docket.stands(Law.SUMS, client_id):
            try:
                with reading.snapshot(self._runtime.settings, self._engine) as connection:
                    log = reading.log_facts(connection, [client_id])[client_id]
            except reading.TooLong:
                # It is named all the same, and `billing reconcile` of this client names the rows.
                pass
            else:
                rows = [row for found in sums.differences(log) for row in found.rows]
        return Discrepancy(
            law=Law.SUMS.value,
            client_id=client_id,
            found=f"usage_rollup's rows add up to {rolled:,}, grant_spent's to {spent:,}",
            rows=tuple(rows[:ROWS_MAX]),
            differs_by=rolled - spent,
        )
