"""For users' own tests: billing without a server. The fixtures of `plugin.py` are there once the package is installed.

Everything but the servers is the real thing: tasks, blocks, prices, usage events. The buckets are the twin, the clock
is the test's, and what would have been published is kept for the test to look at.
"""

from __future__ import annotations

from billing.testing.twin import BillingTwin

__all__ = ["BillingTwin"]
