"""PostgreSQL: a small SQLAlchemy engine for ordinary queries, a bare psycopg connection for the hot path."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
import sqlalchemy

from billing.core.errors import NotMigrated, Unreachable
from billing.core.settings import Settings, without_password

#: How libpq begins its advice to a person, which follows the reason on a line of its own.
_HINT: Final = "\tIs the server running"


#: How long the server works on one statement of the engine, waiting for locks included (L9). The log's writer has no
#: such bound: a batch that was given up half way would only be written again.
STATEMENT_SECONDS_MAX: Final = 60
#: Questions into a silence before a connection counts as lost.
_KEEPALIVES: Final = 3


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
            **_bounds(settings),
            "application_name": "billing",
            "options": f"-c timezone=UTC -c statement_timeout={STATEMENT_SECONDS_MAX * 1_000}",
        },
    )


def connect(settings: Settings, *, autocommit: bool = False) -> psycopg.Connection[tuple[Any, ...]]:
    """Return one open psycopg connection, or raise `Unreachable`."""
    with reaching(settings):
        return psycopg.connect(
            settings.database_url,
            autocommit=autocommit,
            **_bounds(settings),
            application_name="billing",
            options="-c timezone=UTC",
        )


def _bounds(settings: Settings) -> dict[str, Any]:
    """Return libpq's bounds: on connecting, and on noticing that the way to the server, or its machine, is gone."""
    seconds = max(1, round(settings.database_timeout_seconds))
    return {
        "connect_timeout": seconds,
        "tcp_user_timeout": seconds * 1_000,
        "keepalives": 1,
        "keepalives_idle": seconds,
        "keepalives_interval": max(1, seconds // _KEEPALIVES),
        "keepalives_count": _KEEPALIVES,
    }


@contextmanager
def reaching(settings: Settings) -> Iterator[None]:
    """Map a lost or refused connection to `Unreachable`, a missing table to `NotMigrated`; no password is named."""
    try:
        yield
    except sqlalchemy.exc.OperationalError as error:
        raise _unreachable(settings, error.orig or error) from error
    except (psycopg.OperationalError, sqlalchemy.exc.TimeoutError) as error:
        raise _unreachable(settings, error) from error
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        raise _not_migrated(settings) from error
    except sqlalchemy.exc.ProgrammingError as error:
        if isinstance(error.orig, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
            raise _not_migrated(settings) from error
        raise


def _not_migrated(settings: Settings) -> NotMigrated:
    server = without_password(settings.database_url)
    return NotMigrated(f"billing_database_url: {server!r}: lacks tables that this version needs: run: billing migrate")


def _unreachable(settings: Settings, error: BaseException) -> Unreachable:
    server = without_password(settings.database_url)
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith(_HINT)]
    return Unreachable(
        f"billing_database_url: {server!r}: the server does not answer ({lines[-1] if lines else error})"
    )
