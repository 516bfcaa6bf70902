"""The signals, Celery's kind. A receiver may be called twice for one `alert_id`, when a worker died in between.

A receiver that raises is logged and harms nothing. One that waits holds up later signals, which one worker of the fleet
sends at a time, and nothing else: send a task instead.
Receivers are held weakly, as all of Celery's: a module's function lives, a lambda does not.
"""

from __future__ import annotations

from typing import Final

from celery.utils.dispatch import Signal

#: What receivers get, beside `signal` and `sender` (None): who, the share that was crossed (0 when exhausted), the
#: credits that were available and granted then, when that was (UTC), and the alert's id.
_ARGUMENTS: Final = ("client_id", "threshold_percent", "available", "granted", "occurred_at", "alert_id")

#: A client fell below one of `billing_alert_percents` of what it was granted.
low_balance: Final = Signal(name="billing_low_balance", providing_args=_ARGUMENTS)
#: A client has nothing left, or was refused for lack of credits; once until a grant leaves it something to use.
exhausted: Final = Signal(name="billing_exhausted", providing_args=_ARGUMENTS)
