"""The signals, Celery's kind. A receiver may be called twice for one `alert_id`.

That is when its end was not noted in time (a worker died, PostgreSQL was away, beat's pass called it and it took too
long), or when another's call had no place. A receiver is called in a thread of its own; for one client one alert at a
time, in their order. One that raises is logged and harms nothing. One that takes longer than `CALL_SECONDS_MAX` is not
waited for: send a task instead. Receivers are held weakly, as all of Celery's: a module's function lives, a lambda not.
"""

from __future__ import annotations

from typing import Any, Final

from celery.utils.dispatch import Signal

from billing.alerts.alert import (
    CORRUPT,
    EXHAUSTED,
    LATE_USAGE,
    LAW_BROKEN,
    LOW_BALANCE,
    OF_REPORT,
    UNREPORTED,
    WAITING_USAGE,
    Alert,
)

#: What receivers get, beside `signal` and `sender` (None): who, the share that was crossed (0 when exhausted), the
#: credits that were available and granted then, when that was (UTC), and the alert's id.
_ARGUMENTS: Final = ("client_id", "threshold_percent", "available", "granted", "occurred_at", "alert_id")
#: What receivers of `corrupt` get: whose bucket, which key of Redis, what it has instead, when, and the alert's id.
_OF_CORRUPTIONS: Final = ("client_id", "redis_key", "found", "occurred_at", "alert_id")
#: What receivers of the report's alerts get: whose usage, which increment (None where none carries it), what was found.
_OF_REPORT: Final = ("client_id", "increment_id", "found", "occurred_at", "alert_id")
#: What receivers of `law_broken` get: which law, what was found (its name first), when, and the alert's id.
_OF_LAWS: Final = ("law", "found", "occurred_at", "alert_id")

#: A client fell below one of `billing_alert_percents` of what it was granted.
low_balance: Final = Signal(name="billing_low_balance", providing_args=_ARGUMENTS)
#: A client has nothing left, or was refused for lack of credits; once until a grant leaves it something to use.
exhausted: Final = Signal(name="billing_exhausted", providing_args=_ARGUMENTS)
#: A key of a client's bucket is not one that billing wrote: nothing is admitted for it until it is rebuilt. Once for
#: each corruption, and for the operator: no client's webhook is told.
corrupt: Final = Signal(name="billing_corrupt", providing_args=_OF_CORRUPTIONS)

#: An increment is rejected or quarantined: nobody but a person says what becomes of it. Once for each of its
#: identifiers, and for the operator.
unreported: Final = Signal(name="billing_unreported", providing_args=_OF_REPORT)
#: Usage of a period whose invoice was final is on a later invoice, is a line of its own, or is written off. The webhook
#: of its client is told of the first two.
late_usage: Final = Signal(name="billing_late_usage", providing_args=_OF_REPORT)
#: A client's usage waits for a customer or a subscription at Stripe for more than a day. Once until it can be planned.
waiting_usage: Final = Signal(name="billing_waiting_usage", providing_args=_OF_REPORT)
#: A law does not hold any more (`billing doctor` says which do). Once until it held again, and for the operator.
law_broken: Final = Signal(name="billing_law_broken", providing_args=_OF_LAWS)

_SIGNALS: Final = {
    LOW_BALANCE: low_balance,
    EXHAUSTED: exhausted,
    CORRUPT: corrupt,
    UNREPORTED: unreported,
    LATE_USAGE: late_usage,
    LAW_BROKEN: law_broken,
    WAITING_USAGE: waiting_usage,
}


def signal_of(alert: Alert) -> tuple[Signal, dict[str, Any]]:
    """Return the signal that tells an alert, and what its receivers get."""
    special: dict[str, tuple[str, ...]] = {CORRUPT: _OF_CORRUPTIONS, LAW_BROKEN: _OF_LAWS}
    names = special.get(alert.kind) or (_OF_REPORT if alert.kind in OF_REPORT else _ARGUMENTS)
    return _SIGNALS[alert.kind], {name: getattr(alert, name) for name in names}
