"""PostgreSQL by one bare psycopg connection, without SQLAlchemy: for the hot path, and where memory counts.

Every connection notices within written bounds that its server, or the way to it, is gone (L9).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg

from billing.core.errors import NotAllowed, NotMigrated, Unreachable
from billing.core.settings import Settings, without_password

#: How libpq begins its advice to a person, which follows the reason on a line of its own.
_HINT: Final = "\tIs the server running"
#: Where SQLAlchemy's own manual says more, which is of no use to an operator.
_BACKGROUND: Final = re.compile(r"\s*\(Background on this error at: \S+\)")
#: Questions into a silence before a connection counts as lost.
_KEEPALIVES: Final = 3


def connect(settings: Settings, *, autocommit: bool = False) -> psycopg.Connection[tuple[Any, ...]]:
    """Return one open psycopg connection, or raise `Unreachable`."""
    with reaching(settings):
        return psycopg.connect(
            settings.database_url,
            autocommit=autocommit,
            **bounds(settings),
            application_name="billing",
            options="-c timezone=UTC",
        )


def bounds(settings: Settings) -> dict[str, Any]:
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
    except psycopg.OperationalError as error:
        raise unreachable(settings, error) from error
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        raise not_migrated(settings) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise not_allowed(settings, error) from error


def not_migrated(settings: Settings) -> NotMigrated:
    """Return what says that the tables are not those of this version."""
    server = without_password(settings.database_url)
    return NotMigrated(f"billing_database_url: {server!r}: lacks tables that this version needs: run: billing migrate")


def not_allowed(settings: Settings, error: BaseException) -> NotAllowed:
    """Return what the login may not do, in one line without its password."""
    server = without_password(settings.database_url)
    return NotAllowed(f"billing_database_url: {server!r}: {str(error).splitlines()[0]} (see: docs/postgresql.md)")


def unreachable(settings: Settings, error: BaseException) -> Unreachable:
    """Return why there is no connection, in one line without its password."""
    server = without_password(settings.database_url)
    text = _BACKGROUND.sub("", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(_HINT)]
    reason = " ".join((lines[-1] if lines else text).split())
    # What the server itself says while it is asked for a connection: a password, a database that is not there.
    refuses = reason.startswith("connection failed") and "FATAL:" in reason
    verb = "refuses the connection" if refuses else "does not answer"
    return Unreachable(f"billing_database_url: {server!r}: the server {verb} ({reason})")
