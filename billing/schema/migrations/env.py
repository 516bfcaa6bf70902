"""Alembic's environment: it runs on the connection, and inside the transaction, that `billing.schema.migrate` gives."""

from __future__ import annotations

from alembic import context

from billing.schema import METADATA
from billing.schema.migrate import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
context.run_migrations()
