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
    DEBT,
    EXHAUSTED,
    FACTS,
    LATE_USAGE,
    LAW_BROKEN,
    LOW_BALANCE,
    TOP_UP_DECLINED,
    UNREPORTED,
    WAITING_USAGE,
    Alert,
)


def _signal(kind: str) -> Signal:
    """Return the signal of a kind. Its receivers get `signal`, `sender` (None), and by name what is named here."""
    return Signal(name=f"billing_{kind}", providing_args=("client_id", *FACTS[kind], "occurred_at", "alert_id"))


#: A client fell below one of `billing_alert_percents` of what it was granted: `threshold_percent`, with the credits
#: `available` and `granted` then.
low_balance: Final = _signal(LOW_BALANCE)
#: A client has nothing left, or was refused for lack of credits; once until a grant leaves it something to use. The
#: threshold is 0.
exhausted: Final = _signal(EXHAUSTED)
#: A client owes more than its `overdraft_limit` covers, in all `owed`: nothing is admitted for it. Once until it owes
#: no more than that again.
debt: Final = _signal(DEBT)
#: An automatic top-up of so many `credits` was declined, or no answer came: `found` says which. Once for each request.
top_up_declined: Final = _signal(TOP_UP_DECLINED)
#: A key of a client's bucket, `redis_key`, is not one that billing wrote, but what was `found`: nothing is admitted for
#: it until it is rebuilt. Once for each corruption, and for the operator: no client's webhook is told.
corrupt: Final = _signal(CORRUPT)

#: An increment is rejected or quarantined: nobody but a person says what becomes of it. Once for each of its
#: identifiers, and for the operator.
unreported: Final = _signal(UNREPORTED)
#: Usage of a period whose invoice was final is on a later invoice, is a line of its own, or is written off: `found`
#: says so in words for the client, too.
late_usage: Final = _signal(LATE_USAGE)
#: A client's usage waits for a customer or a subscription at Stripe for more than a day. Once until it can be planned.
#: No increment carries it: `increment_id` is None.
waiting_usage: Final = _signal(WAITING_USAGE)
#: A law does not hold any more (`billing doctor` says which do): `law`, and what was `found`, its name first. Once
#: until it held again, and for the operator.
law_broken: Final = _signal(LAW_BROKEN)

_SIGNALS: Final = {
    LOW_BALANCE: low_balance,
    EXHAUSTED: exhausted,
    DEBT: debt,
    TOP_UP_DECLINED: top_up_declined,
    CORRUPT: corrupt,
    UNREPORTED: unreported,
    LATE_USAGE: late_usage,
    LAW_BROKEN: law_broken,
    WAITING_USAGE: waiting_usage,
}


def signal_of(alert: Alert) -> tuple[Signal, dict[str, Any]]:
    """Return the signal that tells an alert, and what its receivers get."""
    told = {"occurred_at": alert.occurred_at, "alert_id": alert.alert_id}
    return _SIGNALS[alert.kind], {"client_id": alert.client_id, **alert.facts(), **told}
