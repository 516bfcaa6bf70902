"""Random operations on an increment log, as planner, pusher, confirmer, reports and people do them.

Every choice is made by numbers that are drawn once and given to each log, so that logs in one state do the same.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

from billing.sinks.sink import Answer, ErrorReport, Reply
from billing.sinks.sync import afterwards, looks, protocol
from billing.sinks.sync.increment import Attempt, Increment, attempt_of
from billing.sinks.sync.log import Having, Open
from billing.sinks.sync.planning.period_source import PeriodsFound
from billing.sinks.sync.planning.periods import KnownPeriod
from billing.sinks.sync.planning.planner import Planner, PlanRules
from tests.contract.increments.books import Books

CLIENTS: Final = ("acme", "brock", "carol")
SKUS: Final = ("page", "search", "token")
BOOKS: Final = ("stand-in", "test")
_DAY: Final = timedelta(days=1)


class Clock:
    """A clock that jumps."""

    def __init__(self, now: datetime) -> None:
        self.instant = now

    def now(self) -> datetime:
        """Return the instant."""
        return self.instant

    def monotonic(self) -> float:
        """Return seconds that stand still."""
        return 0.0


class Operations:
    """Does operations on some books."""

    def __init__(self, books: Books, clock: Clock) -> None:
        self._books, self._log, self._clock = books, books.log, clock

    def do(self, name: str, seed: int) -> object:
        """Do one operation, with the choices of a seed; return what it says."""
        operation: Callable[[random.Random], object] = getattr(self, name)
        return operation(random.Random(seed))

    def use(self, chance: random.Random) -> None:
        """Use something, now or some days ago."""
        hour = self._clock.now().replace(minute=0) - timedelta(hours=chance.choice((0, 0, 1, 30, 200)))
        client_id, sku = chance.choice(CLIENTS), chance.choice(SKUS)
        self._books.use(client_id, sku, hour, chance.randint(1, 3_000))

    def give_back(self, chance: random.Random) -> None:
        """Return some credits."""
        hour = self._clock.now().replace(minute=0)
        self._books.use(chance.choice(CLIENTS), chance.choice(SKUS), hour, -chance.randint(1, 900))

    def plan(self, chance: random.Random) -> object:
        """Plan, by one of the policies."""
        policy = chance.choice(("carry_forward", "carry_forward", "invoice_item", "write_off"))
        rules = PlanRules(meter="credits", late_usage=policy)  # type: ignore[arg-type]
        client_id = chance.choice((None, None, CLIENTS[0]))
        return Planner(self._log, self._clock, rules, rows=chance.choice((3, 20_000))).plan(client_id=client_id)

    def read_periods(self, chance: random.Random) -> None:
        """Learn a customer's periods."""
        now = self._clock.now()
        start = now.replace(hour=5, minute=7, second=11) - chance.choice((0, 3, 12)) * _DAY
        end = start + chance.choice((4, 15, 30)) * _DAY
        ended = chance.random() < 0.2
        known = KnownPeriod(start=start, end=end, closes_at=end + timedelta(minutes=50), ended=ended)
        reasons = {"": "has no subscription"} if chance.random() < 0.2 else {}
        found = PeriodsFound(periods={} if reasons else {"credits": [known], "tokens": [known]}, reasons=reasons)
        customer_id = f"cus_{chance.choice(CLIENTS)}"
        self._log.keep_periods(customer_id, None if chance.random() < 0.1 else found, read_at=now)

    def claim(self, chance: random.Random) -> object:
        """Take an increment for a call."""
        books = chance.choice((BOOKS[0], BOOKS[0], BOOKS[0], BOOKS[1]))
        now = self._clock.now()
        return self._log.claim(self._one(chance), lambda one: protocol.claimed(one, books=books, now=now))

    def answer(self, chance: random.Random) -> object:
        """Note an answer to the latest attempt, or to the one before."""
        reply = Reply(answer=chance.choice(list(Answer)), http_status=200, request_id="req_1", reason="so")
        earlier, doubted, now = chance.random() < 0.1, chance.random() < 0.3, self._clock.now()

        def decide(one: Increment) -> tuple[Increment | None, Attempt | None]:
            attempt = one.attempts - earlier
            noted = dataclasses.replace(attempt_of(one, reply, now), attempt=attempt)
            return protocol.answered(one, attempt, reply, doubted=doubted), noted

        return self._log.note(self._one(chance), decide)

    def lose(self, chance: random.Random) -> object:
        """Find who died, and note it."""
        now = self._clock.now()
        found = self._log.find_lost(self._open(chance))
        ended = Reply(answer=Answer.UNKNOWN, reason="the pusher ended")
        return [
            self._log.note(number, lambda one: (protocol.lost(one, now), attempt_of(one, ended, now)))
            for number in found
        ]

    def check(self, chance: random.Random) -> object:
        """Look at the sink's sum."""
        now, times = self._clock.now(), chance.choice((0, 0, 0, 1, 1, 2))
        number = self._one(chance)
        doubted_by = self._log.doubted_by(number)
        return self._log.change(
            number,
            lambda one: looks.checked(one, times * one.units, now, payload=one.payload, doubted_by=doubted_by),
        )

    def refuse(self, chance: random.Random) -> object:
        """Have a look refused, or unanswered."""
        now = self._clock.now()
        if chance.random() < 0.5:
            return self._log.change(self._one(chance), lambda one: looks.unanswered(one, now))
        reason = "no such customer"
        return self._log.change(
            self._one(chance), lambda one: looks.check_refused(one, reason, now, payload=one.payload)
        )

    def withdraw(self, chance: random.Random) -> object:
        """Take a second generation back."""
        now = self._clock.now()
        return self._log.claim(self._one(chance), lambda one: afterwards.withdrawing(one, 2 * one.units, now))

    def report(self, chance: random.Random) -> object:
        """Hear a report of calls, some of which it names."""
        attempts = self._books.attempts()
        keys = [chance.choice(attempts).idempotency_key for _ in range(chance.randint(0, 2)) if attempts]
        at = self._clock.now() - timedelta(minutes=chance.randint(0, 30))
        found = ErrorReport(
            event_id=f"evt_{chance.randint(1, 20)}",
            event_name=chance.choice(("credits", "tokens", "")),
            code="meter_event_customer_not_found",
            count=len(set(keys)) + chance.choice((0, 0, 1)),
            window_start=at,
            window_end=at + timedelta(seconds=10),
            samples=(*keys, "somebody's"),
        )
        added = self._log.add_reports([found], self._clock.now())
        named = [self._log.change(number, lambda one: afterwards.named(one, found)) for number in added[0][1]]
        return added, named

    def resolve(self, chance: random.Random) -> object:
        """Have a person say that nothing arrived, or give it up."""
        now, absent = self._clock.now(), chance.random() < 0.7

        def decide(one: Increment) -> Increment | None:
            if not protocol.may_resolve(one, now):
                return None
            return protocol.resolved_as_absent(one, "seen", now) if absent else protocol.written_off(one, "given up")

        return self._log.change(self._one(chance), decide)

    def find(self, chance: random.Random) -> object:
        """Ask all that can be asked."""
        now, search, number = self._clock.now(), self._open(chance), self._one(chance)
        having = chance.choice(list(Having))
        return {
            "lost": self._log.find_lost(search),
            "open": self._log.find_open(search),
            "unconfirmed": self._log.find_unconfirmed(search),
            "unread": self._log.find_unread(now=now, before=now, most=chance.choice((1, 9)), meter="credits"),
            "waiting": dict(self._log.count_waiting(having=having, now=now)),
            "doubted": self._log.doubted_by(number),
            "sent before": list(self._log.sent_before(number)),
            "reported": self._log.reported_until(),
        }

    def jump(self, chance: random.Random) -> None:
        """Let time pass; now and then, set the clock back."""
        steps = (timedelta(seconds=70), timedelta(minutes=30), timedelta(hours=5), _DAY, -timedelta(hours=1), 9 * _DAY)
        self._clock.instant += chance.choices(steps, (6, 6, 6, 4, 2, 1))[0]

    def _one(self, chance: random.Random) -> int:
        """Choose an increment, one of the latest as a rule; 0 is none."""
        known = self._books.increments()
        latest = known[-6:] if chance.random() < 0.8 else known
        return chance.choice(latest).increment_id if latest and chance.random() < 0.98 else 0

    def _open(self, chance: random.Random) -> Open:
        return Open(
            books=chance.choice((BOOKS[0], BOOKS[0], BOOKS[1])),
            now=self._clock.now(),
            most=chance.choice((1, 5, 500)),
            client_id=chance.choice((None, None, CLIENTS[1])),
            without=chance.choice(((), (), ("tokens",))),
        )


#: Each operation, and how often it is done.
WEIGHTS: Final[dict[str, int]] = {
    "use": 12,
    "give_back": 3,
    "plan": 8,
    "read_periods": 3,
    "claim": 16,
    "answer": 14,
    "lose": 4,
    "check": 10,
    "refuse": 3,
    "withdraw": 2,
    "report": 3,
    "resolve": 2,
    "find": 8,
    "jump": 10,
}


def steps(seed: int, count: int) -> list[tuple[str, int]]:
    """Return operations, each with the seed of its choices."""
    chance = random.Random(seed)
    names = chance.choices(list(WEIGHTS), list(WEIGHTS.values()), k=count)
    return [(name, chance.getrandbits(32)) for name in names]


def snapshot(books: Books) -> dict[str, Any]:
    """Return all that is on record."""
    return {
        "increments": books.increments(),
        "attempts": books.attempts(),
        "generations": books.generations(),
        "parts": books.parts(),
        "rollups": books.rollups(),
    }
