"""Tables, migrations and partitions of the PostgreSQL side."""
