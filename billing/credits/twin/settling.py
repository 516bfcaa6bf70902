"""How a run ends: settled, released or expired; and what keeps it until then (L3, L4, L5)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import msgspec

from billing.core.credits import CREDITS_MAX, NO_GRANT
from billing.core.errors import Conflict
from billing.credits.records import check_settlement
from billing.credits.twin.book import Book, take
from billing.credits.twin.memory import HeldRun, SettledRun, Shard, atomic
from billing.credits.twin.reserving import Reserving, joined
from billing.credits.values import (
    ExpireOutcome,
    Overdue,
    ReleaseOutcome,
    RenewOutcome,
    Settlement,
    SettleOutcome,
    SettleReply,
)

_SKU: Final = re.compile(rb'\{"sku":"([^"]*)"')
#: A third of a lease without a sweep is a pause: live workers may have failed to renew.
_SWEEPS_PER_LEASE: Final = 3


class Settling(Reserving):
    """How runs end."""

    @atomic
    def settle(self, settlement: Settlement) -> SettleReply:
        """Charge a run that succeeded and write its event into the outbox, in one step (L3).

        Raises `Conflict` for a run of another client, `InvalidValue` for amounts out of bounds or without lines.
        """
        check_settlement(settlement)
        client_id, run_id = settlement.client_id, settlement.run_id
        shard, now_ms = self._of(client_id), self._memory.now_ms()
        if self._recovering(shard):
            return SettleReply(outcome=SettleOutcome.RECOVERING)
        run = shard.run(run_id, now_ms)
        if run is not None and run.client_id != client_id:
            message = f"run_id: '{run_id}': belongs to another client than {client_id!r}"
            raise Conflict(message)
        if isinstance(run, SettledRun):
            return _already(shard, run, settlement)
        book = shard.books.get(client_id)
        if book is None:
            return SettleReply(outcome=SettleOutcome.UNKNOWN_CLIENT)
        held = {} if run is None else run.grants_lent_by(book)
        if run is not None and not book.has_lent(run.lent_by(book)):
            return SettleReply(outcome=SettleOutcome.CORRUPT)
        charge = charged(book, held, settlement, now_ms)
        if charge.debt and book.total + charge.debt > CREDITS_MAX:
            return SettleReply(outcome=SettleOutcome.TOO_LARGE)

        was_in_debt = book.in_debt
        if run is not None:
            book.room -= run.lent_by(book).get(NO_GRANT, 0)
        _give_back(book, charge.held, charge.left, now_ms)
        for grant, credits_ in charge.taken.items():
            book.accounts[grant].available -= credits_
            book.accounts[grant].spent += credits_
        book.debt_settled += charge.debt
        book.owed += charge.debt
        # Either more is taken than was held, or some of it comes back.
        if charge.taken or charge.debt:
            self._tell(shard, client_id, book, now_ms)
        else:
            book.rearm(now_ms)
        self._tell_debt(shard, client_id, book, was_in_debt=was_in_debt, now_ms=now_ms)
        event = _event(settlement, charge, epoch=book.epoch, late=run is None, now_ms=now_ms)
        entry_id = shard.outbox.add(event, now_ms)
        shard.runs[run_id] = SettledRun(
            settlement_id=settlement.settlement_id,
            client_id=client_id,
            entry_id=entry_id,
            until_ms=now_ms + self._retention_ms,
        )
        shard.leases.pop(run_id, None)
        return SettleReply(
            outcome=SettleOutcome.SETTLED,
            event=event,
            entry_id=entry_id,
            late=run is None,
            debt=charge.debt,
            settlement_id=settlement.settlement_id,
        )

    @atomic
    def release(self, client_id: str, run_id: UUID, token: str) -> ReleaseOutcome:
        """Give back the hold of an attempt that did not succeed. A stale attempt's token leaves it alone (L4)."""
        shard, now_ms = self._of(client_id), self._memory.now_ms()
        if self._recovering(shard):
            return ReleaseOutcome.RECOVERING
        run = shard.run(run_id, now_ms)
        if run is None or run.client_id != client_id:
            return ReleaseOutcome.NOTHING
        if isinstance(run, SettledRun):
            return ReleaseOutcome.SETTLED
        # `*` is the token of a hold that was asserted for a running attempt, whichever that is.
        if run.hold.token not in (token, "*"):
            return ReleaseOutcome.STALE
        return ReleaseOutcome.RELEASED if _drop(shard, run, now_ms) else ReleaseOutcome.CORRUPT

    @atomic
    def renew(self, items: Sequence[tuple[str, UUID, float | None]]) -> list[RenewOutcome]:
        """Move the deadlines of running attempts: (client id, run id, lease in seconds or None)."""
        return [self._renew(self._of(client_id), run_id, seconds) for client_id, run_id, seconds in items]

    def renew_each(self, items: Sequence[tuple[str, UUID, float | None]]) -> list[RenewOutcome | Exception]:
        """Do the same: a memory fails for none of them."""
        return list(self.renew(items))

    def _renew(self, shard: Shard, run_id: UUID, lease_seconds: float | None) -> RenewOutcome:
        now_ms = self._memory.now_ms()
        if self._recovering(shard):
            return RenewOutcome.RECOVERING
        run = shard.run(run_id, now_ms)
        if run is None:
            return RenewOutcome.GONE
        if isinstance(run, SettledRun):
            return RenewOutcome.SETTLED
        shard.renew(run_id, now_ms + self._milliseconds(lease_seconds))
        return RenewOutcome.RENEWED

    @atomic
    def stage(self, client_id: str, run_id: UUID, token: str, lines: bytes, *, head: bytes = b"") -> bool:
        """Replace the draft lines of a held run (and its head, if given); False if this attempt has no hold."""
        shard = self._of(client_id)
        run = shard.run(run_id, self._memory.now_ms())
        if self._recovering(shard) or not isinstance(run, HeldRun) or run.hold.token not in (token, "*"):
            return False
        run.hold = msgspec.structs.replace(run.hold, lines=lines, head=head or run.hold.head)
        return True

    @atomic
    def overdue(self, shard: int, count: int) -> Overdue:
        """Sweep a shard: name holds whose lease ran out. After a pause in sweeping none for one lease (L5)."""
        found, now_ms = self._memory.shards[shard], self._memory.now_ms()
        if self._recovering(found):
            return Overdue(held=[], paused=True)
        if now_ms - found.swept_ms > self._lease_ms // _SWEEPS_PER_LEASE:
            found.grace_ms = now_ms + self._lease_ms
        found.swept_ms = now_ms
        if now_ms < found.grace_ms:
            return Overdue(held=[], paused=True)
        due = [(run_id, deadline_ms) for run_id, deadline_ms in found.by_deadline() if deadline_ms <= now_ms]
        held = []
        for run_id, deadline_ms in due:
            run = found.run(run_id, now_ms)
            if isinstance(run, HeldRun):
                held.append(run.stored(deadline_ms))
            else:
                del found.leases[run_id]
        return Overdue(held=held[:count], paused=False)

    @atomic
    def expire(self, client_id: str, run_id: UUID) -> ExpireOutcome:
        """Give back a hold whose deadline has passed, if its shard is swept without pauses."""
        shard, now_ms = self._of(client_id), self._memory.now_ms()
        if self._recovering(shard):
            return ExpireOutcome.RECOVERING
        run = shard.run(run_id, now_ms)
        if not isinstance(run, HeldRun):
            shard.leases.pop(run_id, None)
            return ExpireOutcome.NOTHING
        if run.client_id != client_id:
            return ExpireOutcome.NOTHING
        paused = now_ms - shard.swept_ms > self._lease_ms // _SWEEPS_PER_LEASE or now_ms < shard.grace_ms
        if paused or shard.leases.get(run_id, 0) > now_ms:
            return ExpireOutcome.NOT_DUE
        return ExpireOutcome.EXPIRED if _drop(shard, run, now_ms) else ExpireOutcome.CORRUPT


@dataclass(kw_only=True, slots=True)
class Charge:
    """Who pays for a settlement: `left` of what was `held` goes back, `taken` comes on top, `debt` nobody covers.

    `lines` says per line what each grant paid, grant 0 for debt.
    """

    held: dict[int, int]
    left: dict[int, int]
    taken: dict[int, int] = field(default_factory=dict)
    debt: int = 0
    lines: list[dict[int, int]] = field(default_factory=list)


def charged(book: Book, held: dict[int, int], settlement: Settlement, now_ms: int) -> Charge:
    """Return who pays; nothing is moved.

    Each line takes from the front of the hold, then from what is available in burn order, of grants for its SKU; the
    rest is debt. A hold may use what it was lent also when the grant has ended since. Overdraft room pays nothing: what
    no grant covers is debt, whether it was held or not.
    """
    charge = Charge(held=held, left=dict(held))
    available = {account.grant_id: account.available for account in book.paying(now_ms)}
    for fragment, amount in zip(settlement.fragments, settlement.amounts, strict=True):
        found = _SKU.match(fragment)
        sku = found[1].decode() if found else ""

        def fits(grant: int, sku: str = sku) -> bool:
            return book.accounts[grant].terms.fits(sku)

        of_hold = take(charge.left, amount, fits)
        need = amount - sum(of_hold.values())
        more = take(available, need, fits)
        debt = need - sum(more.values())
        charge.taken = joined(charge.taken, more)
        charge.debt += debt
        charge.lines.append(joined(of_hold, more) | ({NO_GRANT: debt} if debt else {}))
    return charge


def _event(settlement: Settlement, charge: Charge, *, epoch: int, late: bool, now_ms: int) -> bytes:
    """Return the usage event: the head, then what only the bucket knows; per line its fragment and who paid."""
    lines = []
    for fragment, paid in zip(settlement.fragments, charge.lines, strict=True):
        shares = ",".join(f'{{"grant":{grant},"credits":{credits_}}}' for grant, credits_ in paid.items())
        lines.append(fragment + f',"grants":[{shares}]}}'.encode())
    known = f',"settlement_id":"{settlement.settlement_id}","occurred_at":{now_ms},"epoch":{epoch}'
    flags = f',"late":{"true" if late else "false"},"lines":['
    return settlement.head + (known + flags).encode() + b",".join(lines) + b"]}"


def _already(shard: Shard, run: SettledRun, settlement: Settlement) -> SettleReply:
    """Return the answer of a run that is charged; the same settlement gets its event while that is in the outbox."""
    same = run.settlement_id == settlement.settlement_id
    event = shard.outbox.entries.get(run.entry_id) if same else None
    return SettleReply(
        outcome=SettleOutcome.ALREADY,
        event=event,
        entry_id=None if event is None else run.entry_id,
        settlement_id=run.settlement_id,
    )


def _give_back(book: Book, held: dict[int, int], left: dict[int, int], now_ms: int) -> None:
    """End what a hold was lent: what is left goes back to exactly the grants that lent it, the rest is spent."""
    for grant, lent in held.items():
        account = book.accounts[grant]
        account.held -= lent
        account.spent += lent - left[grant]
        book.put_back(account, left[grant], now_ms)


def _drop(shard: Shard, run: HeldRun, now_ms: int) -> bool:
    """End a hold without a charge. One whose bucket is gone, or of another epoch, gives nothing back.

    False, and nothing is changed, where the bucket has not the grants that lent.
    """
    book = shard.books.get(run.hold.client_id)
    if book is not None:
        held = run.grants_lent_by(book)
        if not book.has_lent(run.lent_by(book)):
            return False
        book.room -= run.lent_by(book).get(NO_GRANT, 0)
        _give_back(book, held, held, now_ms)
        book.rearm(now_ms)
    del shard.runs[run.hold.run_id]
    shard.leases.pop(run.hold.run_id, None)
    return True
