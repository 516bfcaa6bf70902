"""Reads the metrics of workers over HTTP, as Prometheus does."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import httpx

from billing.embedded.process import Child
from tests.waiting import wait_until

_SAID = re.compile(r"metrics at (http://127\.0\.0\.1:[0-9]+/metrics)")


def url_of(child: Child) -> str:
    """Return where a worker serves its metrics, once it does."""

    def found() -> str:
        match = _SAID.search(Path(child.log).read_text(errors="replace"))
        return match[1] if match else ""

    wait_until(found, f"{child.name} serves metrics: {child.log}")
    return found()


def samples(url: str) -> dict[str, float]:
    """Return what a scrape says, by name and labels as they are written: `billing_runs_total{outcome="late"}`."""
    # No certificates: reading them would take longer than the scrape.
    lines = httpx.get(url, timeout=60, trust_env=False, verify=False).text.splitlines()  # noqa: S501 - plain HTTP
    found = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in found.items()}


def by_label(found: dict[str, float], name: str) -> dict[str, float]:
    """Return the series of a metric with one label that are not 0, by that label's value."""
    series = re.compile(rf'{name}\{{[a-z]+="([^"]*)"\}}')
    matches = ((series.fullmatch(sample), value) for sample, value in found.items())
    return {match[1]: value for match, value in matches if match and value}


def added(urls: Iterable[str]) -> dict[str, float]:
    """Return what several workers say, added up."""
    total: dict[str, float] = {}
    for url in urls:
        for name, value in samples(url).items():
            total[name] = total.get(name, 0) + value
    return total


def scrape(url: str) -> dict[str, float]:
    """Return what a scrape says of a consumer, by name, without the prefix that all names have."""
    return {name.removeprefix("billing_consumer_"): value for name, value in samples(url).items()}
