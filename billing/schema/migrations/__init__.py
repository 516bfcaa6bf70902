"""The Alembic migrations. They ship in the wheel; `billing.schema.migrate` runs them without an `alembic.ini`."""
