"""Buckets, grants and reservations in Redis; the only room that knows Redis' keys, the outbox's too."""
