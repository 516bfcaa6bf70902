"""Alerts: what `reserve`, `settle` and the sync noticed becomes a row, a signal, and a signed call of a webhook.

    from billing import alerts

    @alerts.low_balance.connect
    def warn(client_id, threshold_percent, available, granted, **_): ...

Receivers run in the fulfillment worker, or in whichever worker serves `billing.maintenance`.
"""

from __future__ import annotations

from billing.alerts.signals import corrupt, exhausted, late_usage, law_broken, low_balance, unreported, waiting_usage

__all__ = ["corrupt", "exhausted", "late_usage", "law_broken", "low_balance", "unreported", "waiting_usage"]
