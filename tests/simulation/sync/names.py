"""Names from the seed: the stand-in's ids are by chance, and what is sorted by them must be the same in each run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

from billing.sinks.stripe.sandbox import records


@contextmanager
def named(seed: int) -> Iterator[None]:
    """Let the stand-in draw its ids from a seed meanwhile."""
    drawn, own = random.Random(f"names of {seed}"), vars(records)
    real = own["secrets"]
    own["secrets"] = SimpleNamespace(token_hex=lambda size: f"{drawn.getrandbits(8 * size):0{2 * size}x}")
    try:
        yield
    finally:
        own["secrets"] = real
