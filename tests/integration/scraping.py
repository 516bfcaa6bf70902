"""Reads a consumer's metrics over HTTP, as Prometheus does."""

from __future__ import annotations

import httpx


def scrape(url: str) -> dict[str, float]:
    """Return what a scrape says, by name, without the prefix that all names have."""
    # No certificates: reading them would take longer than the scrape.
    lines = httpx.get(url, timeout=60, trust_env=False, verify=False).text.splitlines()  # noqa: S501 - plain HTTP
    found = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name.removeprefix("billing_consumer_"): float(value) for name, value in found.items()}
