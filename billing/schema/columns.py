"""What the files of tables share: the metadata, and columns that are written the same way everywhere."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Column, DateTime, MetaData, Text, text

#: PostgreSQL's own way of naming, so that a constraint made by hand is named like one made here.
NAMING: Final = {
    "pk": "%(table_name)s_pkey",
    "fk": "%(table_name)s_%(column_0_name)s_fkey",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    "ck": "%(table_name)s_%(constraint_name)s_check",
}
METADATA: Final = MetaData(naming_convention=NAMING)

NOW: Final = text("now()")


def amount(name: str, **options: Any) -> Column[int]:
    """Return a column of whole credits, or of whole units."""
    return Column(name, BigInteger, nullable=False, **options)


def instant(name: str, *, nullable: bool = False, default: Any = None, comment: str | None = None) -> Column[Any]:
    """Return a column of an instant."""
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=default, comment=comment)


def words(name: str, **options: Any) -> Column[str]:
    """Return a column of text."""
    return Column(name, Text, nullable=False, **options)
