"""Every metric of the catalogue, by who says it."""

from __future__ import annotations

from billing.observability.metrics.catalogue import CATALOGUE, Metric, Source
from docs.made.markdown import code, table

_SAYS = {
    Source.WORKER: "Said by workers",
    Source.FULFILLMENT: "Said by fulfillment workers",
    Source.FLEET: "Said by Flower or the exporter",
}


def metrics() -> str:
    """Return a table for each kind of process."""
    parts = []
    for source in Source:
        rows = (
            (code(each.name), each.kind.value, _labels(each), each.says) for each in CATALOGUE if each.source is source
        )
        parts.append(f"## {_SAYS[source]}\n\n" + table(("metric", "type", "labels", "what it says"), rows))
    return "\n\n".join(parts)


def _labels(metric: Metric) -> str:
    return "; ".join(f"`{name}`: {', '.join(values) or 'its number'}" for name, values in metric.labels)
