"""Parked tasks: messages that wait in PostgreSQL until their client can pay, and are handed to the broker then."""
