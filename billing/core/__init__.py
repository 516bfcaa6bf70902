"""Credits, ids, clock, errors and settings: no I/O, and nothing of ours is imported here."""
