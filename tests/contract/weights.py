"""How often each kind of operation comes in a random walk: the name of its maker, and how many there are of it."""

from __future__ import annotations

from typing import Final

#: Always.
WEIGHTS: Final = {
    "reserve": 120,
    "again": 40,
    "settle": 90,
    "settle_again": 12,
    "release": 45,
    "renew": 12,
    "stage": 6,
    "expire": 14,
    "overdue": 4,
    "open": 1,
    "grant": 35,
    "grant_again": 5,
    "post": 25,
    "forget": 10,
}
#: Only with terms.
TERMS: Final = {"void": 6, "adjust": 10, "set_terms": 12, "end_grant": 14, "lapse": 5}
#: Only where buckets are lost and rebuilt.
LOSSES: Final = {"assert": 6, "mark_logged": 3, "lose": 1, "close": 1, "verify": 8, "rebuild": 6}
