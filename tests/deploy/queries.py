"""What a PromQL expression names, checked against the catalogue: metrics, labels, their values, and how each is used.

Pure, on the syntax tree of a parser that is not ours: a query that would only ever be empty is refused here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Final

import promql_parser as promql

from billing.observability.metrics.catalogue import CATALOGUE, Kind, Metric, Source

_RATES: Final = frozenset({"rate", "irate", "increase"})
_ONE_OF_MANY: Final = frozenset({"max", "min"})
#: What Prometheus adds to each series of a target.
_TARGET: Final = ("job", "instance")
JOBS: Final = {
    Source.WORKER: "billing-workers",
    Source.FULFILLMENT: "billing-fulfillment",
    Source.FLEET: "billing-fleet",
}
_SERIES: Final = {sample: metric for metric in CATALOGUE for sample in metric.samples}

Node = promql.Expr


def faults(query: str, recorded: Collection[str] = ()) -> list[str]:
    """Return what is wrong with a query, in words; `recorded`: the names that recording rules make."""
    try:
        tree = promql.parse(query)
    except ValueError as error:
        return [f"is no query: {error}"]
    return [f"{fault} in: {query}" for fault in _faults(tree, (), recorded)]


def metrics(query: str) -> set[str]:
    """Return the names of the catalogue's metrics that a query reads."""
    found: set[str] = set()

    def visit(node: Node) -> None:
        if isinstance(node, promql.VectorSelector) and node.name in _SERIES:
            found.add(_SERIES[node.name].name)

    promql.walk(promql.parse(query), visit)
    return found


def _faults(node: Node, above: tuple[Node, ...], recorded: Collection[str]) -> Iterator[str]:
    if isinstance(node, promql.VectorSelector):
        yield from _selector(node, above, recorded)
    if isinstance(node, promql.Call) and node.func.name == "histogram_quantile":
        yield from _quantile(node)
    for child in _children(node):
        yield from _faults(child, (*above, node), recorded)


def _children(node: Any) -> list[Node]:
    """Return what stands directly below a node of the tree."""
    if isinstance(node, promql.Call):
        return [each for each in node.args if isinstance(each, Node)]
    names = ("lhs", "rhs", "expr", "vector_selector")
    return [getattr(node, name) for name in names if hasattr(node, name)]


def _selector(node: promql.VectorSelector, above: tuple[Node, ...], recorded: Collection[str]) -> Iterator[str]:
    name = node.name or ""
    if name == "up":
        yield from _known(name, node, {"job": tuple(JOBS.values()), "instance": ()})
        return
    if name in recorded:
        return
    if name not in _SERIES:
        yield f"{name} is no metric of the catalogue and no recorded one"
        return
    metric = _SERIES[name]
    labels = {**dict(metric.labels), "job": (JOBS[metric.source],), "instance": ()}
    if name.endswith("_bucket") and metric.kind is Kind.HISTOGRAM:
        labels["le"] = tuple(map(str, metric.buckets))
    yield from _known(name, node, labels)
    yield from _used(name, metric, above)
    for group in (each for each in above if isinstance(each, promql.AggregateExpr)):
        for label in group.modifier.labels if group.modifier else ():
            if label not in labels:
                yield f"{name} has no label {label} to group by"


def _known(name: str, node: promql.VectorSelector, labels: dict[str, tuple[str, ...]]) -> Iterator[str]:
    """Refuse labels that the series do not have, and values that a label never has. `()`: any value."""
    for matcher in node.matchers.matchers:
        if matcher.name not in labels:
            yield f"{name} has no label {matcher.name}"
            continue
        known = labels[matcher.name]
        pattern = matcher.op in (promql.MatchOp.Re, promql.MatchOp.NotRe)
        values = matcher.value.split("|") if pattern else [matcher.value]
        for value in values:
            if known and value not in known and not any(sign in value for sign in ".*+$"):
                yield f'{name} never has {matcher.name}="{value}"'


def _used(name: str, metric: Metric, above: tuple[Node, ...]) -> Iterator[str]:
    """Refuse a rate of what is no counter, a counter without a rate, and a fleet's gauge that is added up."""
    calls = {each.func.name for each in above[-2:] if isinstance(each, promql.Call)}
    counts = metric.kind is not Kind.GAUGE
    if counts and not calls & _RATES:
        yield f"{name} only ever grows, and has no rate"
    if not counts and calls & _RATES:
        yield f"{name} is a gauge, and has a rate"
    parent = above[-1] if above else None
    chosen = isinstance(parent, promql.AggregateExpr) and str(parent.op) in _ONE_OF_MANY
    if metric.source is Source.FLEET and not chosen:
        yield f"{name} is said by every exporter: take its max or min"


def _quantile(node: promql.Call) -> Iterator[str]:
    inner = node.args[1]
    if "_bucket" not in str(inner):
        yield "a quantile of what are no buckets"
    if not isinstance(inner, promql.AggregateExpr) or inner.modifier is None or "le" not in inner.modifier.labels:
        yield "a quantile of buckets that are not summed by le"
