"""Runs promtool on rules: series of a fleet that is well, and of one fault at a time, made from the catalogue.

Time is promtool's own. A fault begins at `BEGAN`, and ends so many seconds later; all other series stay as they are.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from billing.observability.metrics.catalogue import CATALOGUE, Kind, Metric
from tests.conftest import missing
from tests.deploy.files import RULES
from tests.deploy.queries import JOBS

#: Seconds between two scrapes, and two rounds of the rules: twice what the configuration has.
STEP: Final = 10
BEGAN: Final = 900
#: What a gauge says while all is well, where that is not 0.
_WELL: Final = {"billing_server_up": 1, "billing_queue_consumers": 1, "billing_months_ahead": 12}
#: Counters that grow while all is well, in each step.
_GROWS: Final = {
    'billing_reservations_total{job="billing-workers",outcome="held"}': 100,
    'billing_reservations_total{job="billing-workers",outcome="insufficient"}': 5,
    'billing_usage_events_total{job="billing-workers"}': 95,
    'billing_published_events_total{job="billing-workers",outcome="confirmed"}': 95,
    'billing_webhook_calls_total{job="billing-fulfillment",outcome="delivered"}': 3,
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """Series that differ while something is wrong: series → what a gauge says, or a counter grows by in a step."""

    series: Mapping[str, float | None]
    #: The alerts that must fire, and no others.
    fires: frozenset[str]
    #: How long after its beginning they do, and how long after its end none does, in seconds.
    within: int = 30
    clears: int = 30


@functools.cache
def promtool() -> str:
    """Return where promtool is; skip without it, or fail under CI=true."""
    found = shutil.which("promtool")
    return found or missing("promtool (Debian: the package prometheus) is not installed")


def check(what: str, path: Path) -> str:
    """Have promtool check a file of rules or a configuration; return what is wrong, or nothing."""
    done = subprocess.run([promtool(), "check", what, path], capture_output=True, text=True, check=False, timeout=60)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def run(faults: Mapping[str, Fault], directory: Path) -> str:
    """Have promtool play each fault; return what it says differs, or nothing."""
    tests = [_test(name, fault) for name, fault in faults.items()]
    path = directory / "tests.yml"
    given = {"rule_files": [str(RULES)], "evaluation_interval": f"{STEP}s", "tests": tests}
    path.write_text(yaml.safe_dump(given), encoding="utf-8")
    done = subprocess.run([promtool(), "test", "rules", path], capture_output=True, text=True, check=False, timeout=300)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def well() -> dict[str, float]:
    """Return the series of a fleet that is well: what gauges say, and how much counters grow in a step."""
    found: dict[str, float] = {f'up{{instance="one",job="{job}"}}': 1 for job in JOBS.values()}
    for metric in CATALOGUE:
        for sample in metric.samples if metric.kind is Kind.HISTOGRAM else (metric.name,):
            for labels in _labels(metric, bucket=sample.endswith("_bucket")):
                series = sample + "{" + ",".join(f'{name}="{value}"' for name, value in labels) + "}"
                value = _WELL.get(sample, 0) if metric.kind is Kind.GAUGE else _GROWS.get(series, 0)
                found[series] = 1 if ("part", "Redis") in labels and ("verdict", "ok") in labels else value
    return found


def grows(series: str) -> bool:
    """Whether a series is a counter's or a histogram's."""
    name = series.partition("{")[0]
    return any(name in metric.samples and metric.kind is not Kind.GAUGE for metric in CATALOGUE)


def _labels(metric: Metric, *, bucket: bool) -> Iterable[Sequence[tuple[str, str]]]:
    given = [(name, values or ("0", "1")) for name, values in metric.labels]
    given.append(("job", (JOBS[metric.source],)))
    if bucket:
        given.append(("le", (*map(str, metric.buckets), "+Inf")))
    return itertools.product(*([(name, value) for value in values] for name, values in sorted(given)))


def _test(name: str, fault: Fault) -> dict[str, Any]:
    series = well()
    assert set(fault.series) <= set(series), set(fault.series) - set(series)
    lasts = max(fault.within, 60) + 60
    given = [
        {"series": each, "values": _values(each, value, fault.series.get(each, value), lasts)}
        for each, value in series.items()
    ]
    moments = {BEGAN - STEP: frozenset[str](), BEGAN + fault.within: fault.fires, BEGAN + lasts + fault.clears: ()}
    return {
        "name": name,
        "interval": f"{STEP}s",
        "input_series": given,
        "promql_expr_test": [_firing(moment, alerts) for moment, alerts in moments.items()],
    }


def _values(series: str, well: float, ill: float | None, lasts: int) -> str:
    """Write a series in promtool's notation: well until the fault began, ill while it lasts, then well again."""
    before, during, after = BEGAN // STEP, lasts // STEP, 800
    if not grows(series):
        shown = "_" if ill is None else f"{ill:g}"
        return f"{well:g}x{before - 1} {shown}x{during - 1} {well:g}x{after}"
    added = ill or 0
    start, end = well * before, well * before + added * during
    return f"0+{well:g}x{before - 1} {start:g}+{added:g}x{during - 1} {end:g}+{well:g}x{after}"


def _firing(seconds: int, alerts: Iterable[str]) -> dict[str, Any]:
    """Say which alerts fire at a moment: these, and no others."""
    samples = [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(alerts)]
    query = 'max by (alertname) (ALERTS{alertstate="firing"})'
    return {"expr": query, "eval_time": f"{seconds}s", "exp_samples": samples}
