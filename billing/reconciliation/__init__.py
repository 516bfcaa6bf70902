"""Reconciliation: the laws, held against Redis, PostgreSQL and Stripe while all of them move."""
