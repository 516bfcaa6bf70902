"""The kinds of alerts, and the signal that tells each."""

from __future__ import annotations

from billing.alerts import signals
from billing.observability.metrics.catalogue import ALERT_KINDS
from docs.made.comments import comments
from docs.made.markdown import code, table


def kinds() -> str:
    """Return a table of kinds; one without a signal of its own has no cells behind its name."""
    meanings = comments("billing.alerts.signals")
    rows = []
    for kind in ALERT_KINDS:
        signal = getattr(signals, kind, None)
        gets = sorted(signal.providing_args or ()) if signal is not None else ()
        if signal is not None:
            rows.append((code(kind), meanings.get(kind, ""), ", ".join(code(name) for name in gets)))
    return table(("kind, and signal of `billing.alerts.signals`", "when", "what receivers get"), rows)
