"""PostgreSQL: a small SQLAlchemy engine for ordinary queries, a bare psycopg connection for the hot path."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
import sqlalchemy

from billing.connections import libpq
from billing.connections.libpq import connect
from billing.core.settings import Settings

__all__ = ["STATEMENT_SECONDS_MAX", "connect", "engine", "is_locked", "reaching"]

#: How long the server works on one statement of the engine, waiting for locks included (L9). The log's writer has no
#: such bound: a batch that was given up half way would only be written again.
STATEMENT_SECONDS_MAX: Final = 60


def engine(settings: Settings, *, pool_size: int = 2) -> sqlalchemy.Engine:
    """Return an engine for `billing_database_url`; it connects at its first use."""
    url = sqlalchemy.make_url(settings.database_url).set(drivername="postgresql+psycopg")
    return sqlalchemy.create_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        pool_timeout=settings.database_timeout_seconds,
        connect_args={
            **libpq.bounds(settings),
            "application_name": "billing",
            "options": f"-c timezone=UTC -c statement_timeout={STATEMENT_SECONDS_MAX * 1_000}",
        },
    )


def is_locked(error: sqlalchemy.exc.DBAPIError) -> bool:
    """Whether a statement was given up because somebody else has a lock, and not for what it says."""
    return isinstance(error.orig, psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected)


@contextmanager
def reaching(settings: Settings) -> Iterator[None]:
    """Map a lost or refused connection to `Unreachable`, a missing table to `NotMigrated`; no password is named."""
    try:
        yield
    except sqlalchemy.exc.OperationalError as error:
        raise libpq.unreachable(settings, error.orig or error) from error
    except (psycopg.OperationalError, sqlalchemy.exc.TimeoutError) as error:
        raise libpq.unreachable(settings, error) from error
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        raise libpq.not_migrated(settings) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise libpq.not_allowed(settings, error) from error
    except sqlalchemy.exc.ProgrammingError as error:
        if isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
            raise libpq.not_allowed(settings, error.orig) from error
        if _is_missing(error.orig):
            raise libpq.not_migrated(settings) from error
        raise


def _is_missing(error: BaseException | None) -> bool:
    """Whether a database has not what this version needs: a table, a column, or a function of ours."""
    if isinstance(error, psycopg.errors.UndefinedFunction):
        # Of operators and other functions it says the same, which is a mistake of ours.
        return "function billing_" in str(error)
    return isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn)
