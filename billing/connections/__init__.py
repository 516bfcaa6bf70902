"""Redis, PostgreSQL and the broker: made lazily, once per process, bounded."""
