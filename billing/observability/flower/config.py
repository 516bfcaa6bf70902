"""A `flowerconfig.py` for fleets without one of their own (`billing up`). Flower runs it; nothing imports it."""

from billing.observability import flower

# Billing's columns, no arguments or results, loopback only, read-only: each with its reason in that module.
flower.attach()
