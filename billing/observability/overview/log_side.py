"""What a reading asks of PostgreSQL, on a connection of its own, each question alone: one that is refused is None.

Two parts: what each reading asks, and sums over everything that is open, which take longer and are asked less often.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Final, TypeVar

import psycopg
import sqlalchemy
from sqlalchemy import Connection, text

from billing.connections import postgres
from billing.core.clock import Clock
from billing.core.errors import NotAllowed
from billing.core.settings import Settings
from billing.observability.doctor.finding import Finding, warn
from billing.observability.doctor.postgres import MONTHS_AHEAD
from billing.observability.liveness import seen
from billing.observability.liveness.seen import LastSeen
from billing.observability.overview import log_statements as sql
from billing.observability.overview.laws import read_laws
from billing.observability.overview.values import IncrementsState, LawState
from billing.schema.stripe import STATES
from billing.sinks.sync.telling.status_statements import WAITING

#: Names of processes that are told (L9), those seen last of each kind.
SEEN_MAX: Final = 200

T = TypeVar("T")

#: How long the server works on one question (L9), and how long it waits for a table that somebody has locked.
_QUESTION_SECONDS: Final = 2
_SUM_SECONDS: Final = 30
_LOCK_SECONDS: Final = 0.3
#: How long a connection is waited for.
_CONNECT_SECONDS_MAX: Final = 2.0
_ADVICE: Final = "give the login what docs/postgresql.md says"
_ADVICE_SLOW: Final = "see who has its table locked (pg_stat_activity); it is asked again"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LogState:
    """What each reading asks. None: the login may not see it, or it took too long; `findings` says so."""

    seen: tuple[LastSeen, ...] | None
    laws: tuple[LawState, ...] | None
    shards_with_clients: frozenset[int] | None
    dead_letters: int | None
    parked_tasks: int | None
    parked_oldest_at: datetime | None
    log_last_at: datetime | None
    log_read: bool
    months_ahead: int | None
    deliveries: int | None
    findings: tuple[Finding, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SyncState:
    """What the report to Stripe has to carry, and how it stands."""

    unplanned_credits: int
    unplanned_oldest_at: datetime | None
    increments: tuple[IncrementsState, ...]
    last_planned_at: datetime | None
    last_sent_at: datetime | None
    last_confirmed_at: datetime | None


class LogSide:
    """Asks PostgreSQL; the connections are made when they are used, and kept."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._clock = clock
        bound = min(settings.database_timeout_seconds, _CONNECT_SECONDS_MAX)
        self._settings = dataclasses.replace(settings, database_timeout_seconds=bound)
        engine = postgres.engine(self._settings, pool_size=1)
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")

    def read(self) -> LogState:
        """Ask what each reading asks. Raises `Unreachable`, `NotMigrated`."""
        findings: list[Finding] = []

        def ask(about: str, question: Callable[[Connection], T]) -> T | None:
            try:
                with postgres.reaching(self._settings):
                    return self._bounded(question, connection)
            except NotAllowed as error:
                findings.append(warn("PostgreSQL", str(error), _ADVICE))
            except TimeoutError:
                findings.append(warn("PostgreSQL", f"{about} could not be read in time", _ADVICE_SLOW))
            return None

        with self._connected(_QUESTION_SECONDS) as connection:
            parked = ask("parked tasks", lambda c: c.execute(sql.PARKED).one())
            last = ask("the usage history", self._last_row)
            return LogState(
                seen=ask("who was seen", self._seen),
                laws=ask("laws", read_laws),
                shards_with_clients=ask("clients", self._shards),
                dead_letters=ask("dead letters", lambda c: int(c.execute(sql.DEAD_LETTERS).scalar_one())),
                parked_tasks=None if parked is None else int(parked.tasks),
                parked_oldest_at=None if parked is None else parked.oldest_at,
                log_last_at=None if last is None else last[0],
                log_read=last is not None,
                months_ahead=ask("months", lambda c: int(c.execute(text(MONTHS_AHEAD)).scalar_one())),
                deliveries=ask("alerts", lambda c: int(c.execute(sql.DELIVERIES).scalar_one())),
                findings=tuple(findings),
            )

    def read_sync(self) -> SyncState:
        """Add up what is open of the report to Stripe. Raises `Unreachable`, `NotMigrated`."""
        settings = self._settings
        with self._connected(_SUM_SECONDS) as connection:
            counted = {"meter": settings.stripe_meter, "subscribed": settings.stripe_periods == "subscription"}
            waiting = {row.why: row for row in connection.execute(WAITING, counted)}
            unplanned = waiting.get("unplanned")
            increments, sent_at = _increments(connection)
            last = connection.execute(sql.LAST_INCREMENTS).one()
        sent = [at for at in (sent_at, last.sent_at) if at is not None]
        return SyncState(
            unplanned_credits=0 if unplanned is None else int(unplanned.credits),
            unplanned_oldest_at=None if unplanned is None else unplanned.oldest,
            increments=increments,
            last_planned_at=last.planned_at,
            last_sent_at=max(sent, default=None),
            last_confirmed_at=last.confirmed_at,
        )

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @contextmanager
    def _connected(self, seconds: float) -> Iterator[Connection]:
        """Within, a connection on which each statement is bounded."""
        with postgres.reaching(self._settings), self._engine.connect() as connection:
            connection.exec_driver_sql(
                f"SET statement_timeout = {seconds * 1_000:.0f}; SET lock_timeout = {_LOCK_SECONDS * 1_000:.0f}"
            )
            yield connection

    def _bounded(self, question: Callable[[Connection], T], connection: Connection) -> T:
        """Ask one question. Raises `TimeoutError` where its time is up, and the server is there all the same."""
        try:
            return question(connection)
        except sqlalchemy.exc.OperationalError as error:
            if isinstance(error.orig, psycopg.errors.QueryCanceled | psycopg.errors.LockNotAvailable):
                raise TimeoutError from error
            raise

    def _last_row(self, connection: Connection) -> tuple[datetime | None]:
        return (connection.execute(sql.LAST_ROW, {"now": self._clock.now()}).scalar_one(),)

    def _seen(self, connection: Connection) -> tuple[LastSeen, ...]:
        # On the reader's clock, as everything else here is: ages are those of the database's, whose clock wrote them.
        now = self._clock.now()
        rows = sorted(seen.read(connection), key=lambda row: (row.process, row.age_seconds))[:SEEN_MAX]
        return tuple(dataclasses.replace(row, seen_at=now - timedelta(seconds=row.age_seconds)) for row in rows)

    def _shards(self, connection: Connection) -> frozenset[int]:
        return frozenset(connection.execute(sql.SHARDS, {"shards": self._settings.shards}).scalars())


def _increments(connection: Connection) -> tuple[tuple[IncrementsState, ...], datetime | None]:
    """Return the increments by state, in the order of their life, and when one of those that are open was sent last."""
    rows = {row.state: row for row in connection.execute(sql.INCREMENTS)}
    size = connection.execute(sql.INCREMENTS_SIZE, {"small": sql.SMALL_BYTES}).one()
    found = {
        row.state: IncrementsState(state=row.state, count=row.increments, units=row.units, oldest_at=row.oldest_at)
        for row in rows.values()
    }
    if size.small:
        row = connection.execute(sql.CONFIRMED).one()
        confirmed = IncrementsState(
            state="confirmed", count=row.increments, units=row.units or 0, oldest_at=row.oldest_at
        )
    else:
        rest = max(0, size.rows - sum(one.count for one in found.values()))
        confirmed = IncrementsState(state="confirmed", count=rest, units=None, oldest_at=None, exact=False)
    found["confirmed"] = confirmed
    none = (IncrementsState(state=state, count=0, units=0, oldest_at=None) for state in STATES)
    sent = [row.sent_at for row in rows.values() if row.sent_at is not None]
    return tuple(found.get(one.state, one) for one in none), max(sent, default=None)
