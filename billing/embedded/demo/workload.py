"""What the demo submits: which clients with which grants, and their tasks in order. Pure: a seed decides.

The clients are those that a shared fleet has to get along with: one with a burst of thousands, one with a single large
job, one whose credits run out in the middle, and ordinary ones between them (L1, L10).
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Final

CAPTURE: Final = "worker_tasks.capture.capture_page"
DEEP_SEARCH: Final = "worker_tasks.search.deep_search"
PREMIUM_SEARCH: Final = "worker_tasks.search.premium_search"

SEED: Final = 20
BURST_CAPTURES: Final = 2_000
DEAD_LINKS: Final = 5
#: One page in so many is a large one.
LARGE_PAGE_EVERY: Final = 40

_TOPICS: Final = (
    "parse command line arguments",
    "open a compressed archive",
    "schedule a coroutine",
    "send mail over a secure connection",
    "walk a syntax tree",
    "decode a percent encoded url",
    "lock shared between processes",
    "round half to even",
    "compare two directories",
    "watch file descriptors for readiness",
    "temporary file that deletes itself",
    "iterate in fixed size batches",
)


class Expected(Enum):
    """How an order may end. A refusal is for want of credits, a failure for a page that is not there."""

    SUCCESS = "success"
    SUCCESS_OR_REFUSAL = "success or refusal"
    FAILURE = "failure"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DemoClient:
    """A client, the credits that it is granted, and its part in the story."""

    client_id: str
    credits: int
    story: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """One task to be submitted; `arguments` includes the client."""

    task: str
    arguments: Mapping[str, Any]
    expected: Expected = Expected.SUCCESS

    @property
    def client_id(self) -> str:
        """Who pays."""
        return str(self.arguments["client_id"])


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """Everything that the demo submits, in order."""

    clients: tuple[DemoClient, ...]
    orders: tuple[Order, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """Addresses of pages that are there, small and large, and of one that is not."""

    small: Sequence[str]
    large: Sequence[str]
    missing: str


BURST: Final = DemoClient(client_id="atlas-archive", credits=40_000, story=f"a burst of {BURST_CAPTURES:,} captures")
DEEP: Final = DemoClient(client_id="deep-thought", credits=5_000, story="one search through the whole corpus")
SHORT: Final = DemoClient(client_id="tight-budget", credits=600, story="its credits run out in the middle")
CLUB: Final = DemoClient(client_id="reader-club", credits=2_500, story="searches, captures, some dead links")
SHOP: Final = DemoClient(client_id="corner-shop", credits=1_500, story="a few of each")


def plan(site: Site, *, seed: int = SEED, burst_captures: int = BURST_CAPTURES) -> Workload:
    """Return the clients and the orders: the burst begins, and the others arrive in the midst of it."""
    dice = random.Random(seed)  # noqa: S311 - the same workload each time is wanted, not secrecy

    def captures(client: DemoClient, count: int, expected: Expected = Expected.SUCCESS) -> list[Order]:
        return [_capture(client, _choose(dice, site), expected) for _ in range(count)]

    def searches(client: DemoClient, count: int) -> list[Order]:
        return [
            Order(task=PREMIUM_SEARCH, arguments={"client_id": client.client_id, "query": dice.choice(_TOPICS)})
            for _ in range(count)
        ]

    burst = captures(BURST, burst_captures)
    # Few enough matches that the result is small, none of them early enough to stop before the last file.
    arguments = {"client_id": DEEP.client_id, "pattern": r"\bXXX+\b.*\?", "matches_max": 1_000}
    others = [
        Order(task=DEEP_SEARCH, arguments=arguments),
        *captures(SHORT, 300, Expected.SUCCESS_OR_REFUSAL),
        *captures(CLUB, 100),
        *[_capture(CLUB, site.missing, Expected.FAILURE) for _ in range(DEAD_LINKS)],
        *searches(CLUB, 30),
        *captures(SHOP, 50),
        *searches(SHOP, 10),
    ]
    first, rest = burst[: burst_captures // 4], burst[burst_captures // 4 :] + others
    dice.shuffle(rest)
    return Workload(clients=(BURST, DEEP, SHORT, CLUB, SHOP), orders=(*first, *rest))


def _capture(client: DemoClient, url: str, expected: Expected) -> Order:
    return Order(task=CAPTURE, arguments={"client_id": client.client_id, "url": url}, expected=expected)


def _choose(dice: random.Random, site: Site) -> str:
    pages = site.large if site.large and dice.randrange(LARGE_PAGE_EVERY) == 0 else site.small
    return dice.choice(pages)
