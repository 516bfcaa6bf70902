"""The continuous reconciler's rows in PostgreSQL: its place, who leads, and what it found and saw gone."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, and_, exists, func, insert, not_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from billing.reconciliation.continuous.standing import Standing, Thing
from billing.reconciliation.recording import RUNS_KEPT, columns_of, forget
from billing.reconciliation.report import DISCREPANCIES_MAX, Discrepancy
from billing.schema.advisory import Guard
from billing.schema.operations import discrepancy, reconciler, reconciliation_run

#: A leader that took no step for so long is replaced; what it was pursuing is taken up by the next pass.
SILENT_MAX: Final = timedelta(seconds=15)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where the reconciler is: the pass under way, up to which client, and what the last one came to."""

    leader: uuid.UUID
    stepped_at: datetime
    started_at: datetime
    shard: int = -1
    after: str = ""
    clients: int = 0
    passes: int = 0
    last_pass: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def lead(connection: Connection, me: uuid.UUID, now: datetime) -> Place | None:
    """Return the place to go on from, if this worker is the one that leads until the transaction ends; else None."""
    lock = select(func.pg_try_advisory_xact_lock(Guard.RECONCILER, 0))
    if _is_led(connection, me) or not connection.execute(lock).scalar_one() or _is_led(connection, me):
        return None
    return place_of(connection) or Place(leader=me, stepped_at=now, started_at=now)


def _is_led(connection: Connection, me: uuid.UUID) -> bool:
    """Return whether another worker leads and is not silent, by the database's clock on both sides."""
    recently = reconciler.c.stepped_at > func.clock_timestamp() - SILENT_MAX
    query = select(reconciler.c.leader).where(reconciler.c.leader != me, recently)
    return connection.execute(query).first() is not None


def keep(connection: Connection, place: Place) -> None:
    """Write the place down."""
    values = {**_columns(place), "stepped_at": func.clock_timestamp()}
    statement = upsert(reconciler).values(singleton=True, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=[reconciler.c.singleton], set_=values))


def place_of(connection: Connection) -> Place | None:
    """Return where the reconciler is; None: it has never begun."""
    row = connection.execute(select(reconciler)).one_or_none()
    return None if row is None else _place(row._mapping)  # noqa: SLF001 - SQLAlchemy's documented way to a row's mapping


def standing(connection: Connection, limit: int = DISCREPANCIES_MAX) -> list[Standing]:
    """Return the discrepancies of the continuous reconciler that are not closed, the oldest first."""
    query = select(discrepancy).where(_stands()).order_by(discrepancy.c.discrepancy_id).limit(limit)
    return [
        Standing(
            discrepancy_id=row.discrepancy_id,
            thing=Thing(law=row.law, client_id=row.client_id or "", grant_id=row.grant_id),
            found=row.found,
            differs_by=row.differs_by,
        )
        for row in connection.execute(query)
    ]


def count_standing(connection: Connection) -> int:
    """Return how many there are."""
    return int(connection.execute(select(func.count()).select_from(discrepancy).where(_stands())).scalar_one())


def begin_run(connection: Connection, started_at: datetime) -> int:
    """Write the run of a pass in which something was found, or was gone; return its number."""
    values = {"started_at": started_at, "whole": False, "continuous": True, "held": False}
    statement = insert(reconciliation_run).values(values).returning(reconciliation_run.c.run_id)
    run_id: int = connection.execute(statement).scalar_one()
    forget(connection, run_id - RUNS_KEPT)
    return run_id


def finish_run(connection: Connection, run_id: int, *, finished_at: datetime, clients: int, stands: int) -> None:
    """Write how such a pass ended."""
    row = update(reconciliation_run).where(reconciliation_run.c.run_id == run_id)
    connection.execute(row.values(finished_at=finished_at, clients=clients, held=stands == 0))


def open_one(connection: Connection, run_id: int, found: Discrepancy) -> Standing:
    """Write a discrepancy."""
    statement = insert(discrepancy).values(columns_of(found, run_id)).returning(discrepancy.c.discrepancy_id)
    return Standing(
        discrepancy_id=connection.execute(statement).scalar_one(),
        thing=Thing(law=found.law, client_id=found.client_id or "", grant_id=found.grant_id),
        found=found.found,
        differs_by=found.differs_by,
    )


def close_one(connection: Connection, run_id: int, one: Standing, why: str) -> None:
    """Write that a discrepancy is gone: a row of its own, which names it (as L7 asks of corrections)."""
    values = {
        "run_id": run_id,
        "law": one.thing.law,
        "client_id": one.thing.client_id,
        "grant_id": one.thing.grant_id,
        "found": why,
        "closes": one.discrepancy_id,
    }
    connection.execute(insert(discrepancy).values(values))


def _stands() -> Any:
    later = discrepancy.alias("later")
    closed = exists().where(later.c.closes == discrepancy.c.discrepancy_id)
    continuous = exists().where(reconciliation_run.c.run_id == discrepancy.c.run_id, reconciliation_run.c.continuous)
    return and_(continuous, discrepancy.c.closes.is_(None), not_(closed))


def _place(row: RowMapping) -> Place:
    return Place(**{field.name: row[field.name] for field in dataclasses.fields(Place)})


def _columns(place: Place) -> dict[str, Any]:
    return {field.name: getattr(place, field.name) for field in dataclasses.fields(place)}
