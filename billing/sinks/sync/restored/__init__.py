"""Notices a PostgreSQL that knows less than Stripe was told, and has it adopt what Stripe has."""
