"""Takes what was compared of each client, and writes what is new and what is gone: one row and one line for each."""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection

from billing.reconciliation.continuous import keeping
from billing.reconciliation.continuous.missed import Missed
from billing.reconciliation.continuous.standing import StandingBook, Thing
from billing.reconciliation.report import Discrepancy, Law

logger = logging.getLogger(__name__)


class Docket:
    """What stands, what was missed, and the run that the present pass writes into."""

    def __init__(self, standing: StandingBook, connection: Connection, now: datetime) -> None:
        self.standing = standing
        self.missed = Missed()
        #: The leader's transaction: what is found is written with the place that was reached.
        self.connection = connection
        self._began = now
        self._run_id: int | None = None
        self._lines: list[tuple[int, str]] = []

    def begin_pass(self, now: datetime) -> None:
        """Write into a new run from now on, once there is something to write."""
        self._began, self._run_id = now, None

    def end_pass(self, now: datetime, clients: int) -> None:
        """Finish the run of this pass, if it has one, and tell whom it could not compare."""
        if self._run_id is not None:
            stands = self.standing.count
            keeping.finish_run(self.connection, self._run_id, finished_at=now, clients=clients, stands=stands)
        for reason, missed in self.missed.untold().items():
            named = ", ".join(sorted(missed)[:3])
            text = f"billing: {reason}: {len(missed)} clients not compared for several passes ({named})"
            self._lines.append((logging.WARNING, text))

    def judge(self, client_id: str, laws: Collection[Law], found: Collection[Discrepancy]) -> None:
        """Take all that differs of a client by some laws."""
        if self.missed:
            for law in laws:
                self.missed.compared(client_id, law.value)
        if not found and not self.standing.concerns(client_id):
            return
        changes = self.standing.judge(client_id, {law.value for law in laws}, found)
        for one, why in changes.closed:
            keeping.close_one(self.connection, self.run_id, one, why)
            self.standing.remove(one)
            grant = "" if one.thing.grant_id is None else f", grant {one.thing.grant_id}"
            text = f"billing: {one.thing.law}: client {client_id}{grant}: {why}: {one.found}"
            self._lines.append((logging.WARNING, text))
        for new in changes.opened:
            self.standing.add(keeping.open_one(self.connection, self.run_id, new))
            self._lines.append((logging.ERROR, f"billing: {new.text}"))

    def stands(self, law: Law, client_id: str) -> bool:
        """Return whether a discrepancy of a client as a whole stands already."""
        return self.standing.has(Thing(law=law.value, client_id=client_id, grant_id=None))

    def tell(self) -> None:
        """Write the lines to the log, once what they say is committed."""
        for level, text in self._lines:
            logger.log(level, "%s", " ".join(text.split()))
        self._lines.clear()

    @property
    def run_id(self) -> int:
        """The run that the present pass writes into; the first to need it begins it."""
        if self._run_id is None:
            self._run_id = keeping.begin_run(self.connection, self._began)
        return self._run_id
