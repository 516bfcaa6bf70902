"""Writes parked tasks to their table, one transaction each: by run id, so that the same run is never there twice.

Workers import this when they first park: until then they do without SQLAlchemy.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from billing.connections import postgres
from billing.core.errors import Retryable
from billing.core.settings import Settings
from billing.ledger.locks import waiting_briefly
from billing.parking.message import expires_at, to_text
from billing.parking.parked import Delivery, ParkOutcome
from billing.parking.services import Services
from billing.parking.statements import BEGUN, IS_FULL, KNOWN, PARK, PARK_AGAIN, PARK_TURN
from billing.schema.advisory import Guard


def store(services: Services, delivery: Delivery, is_given_up: Callable[[], bool]) -> ParkOutcome:
    """Park a delivery in a transaction of its own; one that is given up meanwhile is not committed.

    Raises `Retryable` whatever PostgreSQL has against it now: it may be read-only while it fails over.
    """
    try:
        with (
            postgres.reaching(services.settings),
            services.engine.connect() as connection,
            connection.begin() as transaction,
            waiting_briefly(connection),
        ):
            outcome = park(connection, services.settings, delivery, services.clock.now())
            if is_given_up():
                transaction.rollback()
            return outcome
    except DBAPIError as error:
        # Without its text, which has the message's body in it.
        raise Retryable(f"parking: PostgreSQL refused it: {type(error.orig).__name__}") from None


def store_begun(services: Services, run_id: uuid.UUID, times: int) -> None:
    """Note in a transaction of its own that a run has reserved."""
    with postgres.reaching(services.settings), services.engine.begin() as connection:
        note_begun(connection, run_id, times, services.clock.now())


def park(connection: Connection, settings: Settings, delivery: Delivery, now: datetime) -> ParkOutcome:
    """Have a delivery wait for credits.

    The same delivery again changes nothing. One that was handed over and found the credits gone waits at its old place.
    """
    connection.execute(PARK_TURN, {"guard": int(Guard.PARK), "client": delivery.client_id})
    known = connection.execute(KNOWN, {"run": delivery.run_id}).one_or_none()
    if known is not None:
        if known.state not in ("waiting", "started"):
            return ParkOutcome.ENDED
        # An older copy of the message comes back when its worker died after it was parked: the newer one counts.
        if delivery.times >= known.times:
            connection.execute(PARK_AGAIN, {**_columns(delivery), "parked": known.parked_id})
        return ParkOutcome.PARKED
    most = {"client": delivery.client_id, "most": settings.parked_per_client_max}
    if connection.execute(IS_FULL, most).scalar_one():
        return ParkOutcome.FULL
    connection.execute(PARK, {**_columns(delivery), "now": now, "expires": _expires(delivery, settings, now)})
    return ParkOutcome.PARKED


def note_begun(connection: Connection, run_id: uuid.UUID, times: int, now: datetime) -> None:
    """Note that the message of a run which was parked so many times has reserved its credits."""
    connection.execute(BEGUN, {"run": run_id, "times": times, "now": now})


def _expires(delivery: Delivery, settings: Settings, now: datetime) -> datetime:
    age_max = now + timedelta(seconds=settings.parked_age_max_seconds)
    until = expires_at(delivery.message.headers)
    return age_max if until is None else min(age_max, until)


def _columns(delivery: Delivery) -> dict[str, Any]:
    message = dataclasses.asdict(delivery.message)
    texts = {name: to_text(message[name]) for name in ("headers", "properties")}
    return {
        **message,
        **texts,
        "run": delivery.run_id,
        "client": delivery.client_id,
        "task": delivery.task,
        "task_id": delivery.task_id,
        "sku": delivery.sku,
        "credits": delivery.credits,
        "available": delivery.available,
        "times": delivery.times + 1,
    }
