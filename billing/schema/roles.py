"""Makes the group roles, and gives each exactly what `privileges.py` says, in one database.

Roles belong to the whole cluster, and a hosted service may not let anybody make one: so no migration makes them, but
`billing migrate --roles`. Each later migration renews what a role may do, where it was given anything before: a cluster
with two databases shares the names, and nobody comes into the second one unasked.
"""

from __future__ import annotations

from typing import Final

import psycopg
from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError

from billing.core.errors import Fatal
from billing.schema.columns import METADATA
from billing.schema.privileges import CONSUMER, FLEET, JOINED, MAKE_MONTHS, ROLES, granted

_EXISTS: Final = text("SELECT FROM pg_roles WHERE rolname = :role")
#: Whether `migrate --roles` has run here: what comes through PUBLIC, or to a superuser, counts not.
_USED: Final = text("""
SELECT FROM pg_class CROSS JOIN LATERAL aclexplode(relacl) AS given
WHERE oid = 'usage_history'::regclass AND grantee = (SELECT oid FROM pg_roles WHERE rolname = :role)
""")
_OWNER: Final = text("""
SELECT current_user AS login, rolname AS owner, pg_has_role(relowner, 'USAGE') AS is_owner
FROM pg_class JOIN pg_roles ON pg_roles.oid = relowner WHERE pg_class.oid = 'usage_history'::regclass
""")
_PLACE: Final = text("SELECT current_database() AS database, current_schema() AS home")


def make_roles(connection: Connection) -> list[str]:
    """Make the group roles that are missing, and give all of them what is theirs; return those made.

    Raises `Fatal` where this login is not the owner, and where it may not make a role: somebody who may has to make it.
    """
    owner = connection.execute(_OWNER).one()
    if not owner.is_owner:
        raise Fatal(f"--roles: {owner.login!r}: must be the owner of the tables, {owner.owner!r}")
    made = []
    for role in ROLES:
        if connection.execute(_EXISTS, {"role": role}).first() is None:
            _make(connection, role)
            made.append(role)
        _give(connection, role)
    return made


def renew_roles(connection: Connection) -> None:
    """Give what is theirs to the group roles that this database knows: a migration may have made tables."""
    if not connection.execute(_OWNER).one().is_owner:
        return  # there was nothing to migrate; PostgreSQL would only warn
    for role in ROLES:
        if connection.execute(_USED, {"role": role}).first() is not None:
            _give(connection, role)


def _make(connection: Connection, role: str) -> None:
    try:
        with connection.begin_nested():
            connection.execute(text(f"CREATE ROLE {role} NOLOGIN"))
    except ProgrammingError as error:
        if isinstance(error.orig, psycopg.errors.DuplicateObject):
            return  # somebody migrates another database of this cluster
        if isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
            rule = f"this login may not make a role: have it made (CREATE ROLE {role} NOLOGIN), then run this again"
            message = f"--roles: {role!r}: {rule}"
            raise Fatal(message) from error
        raise


def _give(connection: Connection, role: str) -> None:
    """Give a role exactly what is its, in the schemas of this database."""
    place = connection.execute(_PLACE).one()
    quote = connection.dialect.identifier_preparer.quote
    for name in (*METADATA.tables, *JOINED):
        connection.execute(text(f"REVOKE ALL ON {name} FROM {role}"))
    connection.execute(text(f"REVOKE ALL ON FUNCTION {MAKE_MONTHS} FROM {role}"))
    connection.execute(text(f"GRANT USAGE ON SCHEMA {quote(place.home)}, archive TO {role}"))
    for name, privileges in granted(role).items():
        connection.execute(text(f"GRANT {privileges} ON {name} TO {role}"))
    if role == FLEET:
        connection.execute(text(f"GRANT EXECUTE ON FUNCTION {MAKE_MONTHS} TO {role}"))
    if role in (CONSUMER, FLEET):
        # A batch arrives in a temporary table. PUBLIC may make one, unless somebody has taken that away.
        connection.execute(text(f"GRANT TEMPORARY ON DATABASE {quote(place.database)} TO {role}"))
