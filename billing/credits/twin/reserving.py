"""Reserve, and the forced hold of a running attempt: who may have how much (L1).

Grants for the SKU whose time is not over pay in burn order, then overdraft room up to the limit. A client that owes
more than its limit reserves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from billing.core.credits import NO_GRANT, check_amount
from billing.core.errors import Conflict
from billing.credits.records import claim_of
from billing.credits.terms import ClientState
from billing.credits.twin.book import Book, take
from billing.credits.twin.marks import Marks, Told
from billing.credits.twin.memory import HeldRun, InMemory, SettledRun, Shard, atomic
from billing.credits.values import AssertOutcome, Hold, ReserveOutcome, ReserveReply

#: A run's id tells when it was minted; more than a day ahead of the clock it is refused.
_AHEAD_MS: Final = 86_400_000
_MINTED_BITS: Final = 80
#: The time of a run whose sender told none.
_NO_TIME: Final = 2**48 - 1
_FIXED: Final = re.compile(rb'"fixed":[0-9]+')


class Reserving(InMemory):
    """How runs come to be held."""

    @atomic
    def reserve(self, hold: Hold, *, forget: Sequence[tuple[int, str]] = ()) -> ReserveReply:
        """Hold credits for an attempt. `forget`: confirmed outbox entries, removed in the same round trip."""
        check_amount("credits", hold.credits, minimum=0)
        claim_of(hold)  # refuses what a record could not keep
        for number, entry_id in forget:
            self._memory.shards[number].outbox.entries.pop(entry_id, None)
        shard, now_ms = self._of(hold.client_id), self._memory.now_ms()
        refused = self._refused(shard, hold, now_ms)
        if refused is not None:
            return ReserveReply(outcome=refused, required=hold.credits)
        book, run = shard.books[hold.client_id], shard.run(hold.run_id, now_ms)
        held = run if isinstance(run, HeldRun) else None

        has = sum(held.lent_by(book).values()) if held else 0
        need = max(0, hold.credits - has)
        available = {account.grant_id: account.available for account in book.paying(now_ms, hold.sku)}
        most, free = sum(available.values()), book.free_room
        blocked = free is None and (need > 0 or held is None)
        if blocked or need > most + (free or 0):
            self._tell_the_end(shard, hold.client_id, book, now_ms)
            could_have = has + (most + free if free is not None else 0)
            return ReserveReply(outcome=ReserveOutcome.INSUFFICIENT, required=hold.credits, available=could_have)

        lent = lend(book, available, need)
        if need > 0:
            self._tell(shard, hold.client_id, book, now_ms)
        shard.renew(hold.run_id, now_ms + self._milliseconds(hold.lease_seconds))
        if held is None:
            shard.runs[hold.run_id] = HeldRun(hold=hold, lent=lent, epoch=book.epoch, created_ms=now_ms)
            return ReserveReply(
                outcome=ReserveOutcome.HELD,
                required=hold.credits,
                held=hold.credits,
                price_version=hold.price_version,
            )
        found = held.hold
        held.lent = joined(held.lent_by(book), lent)
        held.epoch = book.epoch
        held.hold = taken_over(found, hold)
        return ReserveReply(
            outcome=ReserveOutcome.TAKEN_OVER,
            required=hold.credits,
            held=has + need,
            price_version=found.price_version,
            head=found.head,
            lines=found.lines,
        )

    def _refused(self, shard: Shard, hold: Hold, now_ms: int) -> ReserveOutcome | None:  # noqa: PLR0911 - one per outcome
        """Return why a hold is refused whatever the client has. The same call again (its token) gets its answer."""
        if self._recovering(shard):
            return ReserveOutcome.RECOVERING
        run = shard.run(hold.run_id, now_ms)
        if isinstance(run, SettledRun):
            return ReserveOutcome.SETTLED
        if run is not None and (run.hold.client_id, run.hold.sku) != (hold.client_id, hold.sku):
            return ReserveOutcome.CONFLICT
        again = run is not None and run.hold.token == hold.token
        if not again and len(shard.outbox.entries) >= self._outbox_entries_max:
            return ReserveOutcome.OUTBOX_FULL
        book = shard.books.get(hold.client_id)
        if book is None:
            return ReserveOutcome.UNKNOWN_CLIENT
        minted_ms = hold.run_id.int >> _MINTED_BITS
        if run is None and minted_ms > now_ms + _AHEAD_MS and minted_ms != _NO_TIME:
            return ReserveOutcome.AHEAD
        if book.terms.state is not ClientState.ACTIVE and not again:
            return ReserveOutcome[book.terms.state.name]
        return None

    @atomic
    def assert_hold(self, hold: Hold) -> AssertOutcome:
        """Renew a running attempt's hold, or write it again where it was lost; never refused for lack of credits.

        While the shard recovers, a hold whose takeover was lost is the later attempt's again, with all its credits.
        The token `*` stands for whichever attempt is running. Raises `Conflict` for a run of another client.
        """
        check_amount("credits", hold.credits, minimum=0)
        claim_of(hold)
        shard, now_ms = self._of(hold.client_id), self._memory.now_ms()
        run = shard.run(hold.run_id, now_ms)
        owner = run.hold.client_id if isinstance(run, HeldRun) else run.client_id if run else hold.client_id
        if owner != hold.client_id:
            message = f"run_id: '{hold.run_id}': belongs to another client than {hold.client_id!r}"
            raise Conflict(message)
        if isinstance(run, SettledRun):
            return AssertOutcome.SETTLED
        book = None if self._recovering(shard) else shard.books.get(hold.client_id)
        shard.renew(hold.run_id, now_ms + self._milliseconds(hold.lease_seconds))
        if run is not None and book is None and _behind(run.hold, hold):
            # The takeover was lost, not the hold: it is this attempt's again, with all that it needs.
            later = hold.attempt > run.hold.attempt
            more = msgspec.structs.replace(run.hold, credits=max(hold.credits, run.hold.credits))
            run.hold = taken_over(run.hold, hold) if later else more
            shard.asserts += 1
            return AssertOutcome.ASSERTED
        if run is not None and (book is None or run.epoch == book.epoch):
            return AssertOutcome.RENEWED
        # While there is no bucket it takes nothing and waits for a rebuild, which is told by the count.
        run = run or HeldRun(hold=hold, lent={}, epoch=0, created_ms=now_ms)
        run.lent, run.epoch = {}, 0
        if book is None:
            shard.asserts += 1
        else:
            claim = run.hold
            available = {account.grant_id: account.available for account in book.paying(now_ms, claim.sku)}
            need = min(claim.credits, sum(available.values()) + (book.free_room or 0))
            run.lent, run.epoch = lend(book, available, need), book.epoch
        shard.runs[hold.run_id] = run
        return AssertOutcome.ASSERTED

    def _tell(self, shard: Shard, client_id: str, book: Book, now_ms: int) -> None:
        """Alert the marks that a step which took credits brought the client below."""
        if book.marks is not None and book.marks.below(book.usable(now_ms)):
            self._alert(shard, client_id, book, now_ms, refused=False)

    def _tell_the_end(self, shard: Shard, client_id: str, book: Book, now_ms: int) -> None:
        """Alert a refused reserve: once until a grant leaves something, however often it is refused."""
        if book.marks is None or not book.marks.end_alerted:
            self._alert(shard, client_id, book, now_ms, refused=True)

    def _alert(self, shard: Shard, client_id: str, book: Book, now_ms: int, *, refused: bool) -> None:
        usable = book.usable(now_ms)
        book.marks, percent = (book.marks or Marks()).crossed(usable, refused=refused)
        if percent is None:
            return
        told = Told(
            server=self._memory.server,
            client_id=client_id,
            percent=percent,
            available=usable,
            granted=book.brought(now_ms),
            occurred_ms=now_ms,
        )
        shard.alerts.add(told, now_ms)


def lend(book: Book, available: dict[int, int], need: int) -> dict[int, int]:
    """Lend a need that is covered: from grants in burn order, the rest as overdraft room (a share of grant 0)."""
    lent = take(available, need)
    for grant, credits_ in lent.items():
        book.accounts[grant].available -= credits_
        book.accounts[grant].held += credits_
    room = need - sum(lent.values())
    book.room += room
    return lent | ({NO_GRANT: room} if room else {})


def joined(shares: dict[int, int], more: dict[int, int]) -> dict[int, int]:
    """Add up shares of grants."""
    return shares | {grant: shares.get(grant, 0) + credits_ for grant, credits_ in more.items()}


def _behind(found: Hold, asked: Hold) -> bool:
    """Whether a hold is as it was before the attempt that asserts it took it over."""
    return found.sku == asked.sku and (asked.attempt > found.attempt or asked.credits > found.credits)


def taken_over(found: Hold, asked: Hold) -> Hold:
    """Return the hold of a run that another attempt, or the same call again, has taken over.

    The price of the first reserve stands; another attempt brings its own draft, unless that is at another price: of
    another price version, or at other fixed credits.
    """
    same_price = (found.price_version, _fixed(found)) == (asked.price_version, _fixed(asked))
    own_draft = found.token != asked.token and same_price
    return msgspec.structs.replace(
        found,
        token=asked.token,
        attempt=asked.attempt,
        credits=max(asked.credits, found.credits),
        head=asked.head if own_draft else found.head,
        lines=asked.lines if own_draft else found.lines,
    )


def _fixed(hold: Hold) -> bytes | None:
    """Return the fixed credits in a hold's draft, as the script finds them in its text."""
    found = _FIXED.search(hold.lines)
    return found and found[0]
