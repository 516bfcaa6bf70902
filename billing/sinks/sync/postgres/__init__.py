"""Increments and plans in PostgreSQL: lock, let the protocol decide, write what it says, commit."""
