"""Buckets and their twin, step by step: each operation is done to both, and every reply and all state must be equal.

State is the client's bucket with what its holds were lent (`audit`), its holds, its marks, and the alerts and events
of its shard. Moments are equal within the time that a step on the server took; events are equal to the byte.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from billing.core.clock import from_milliseconds
from billing.core.credits import NO_GRANT
from billing.core.errors import BillingError
from billing.core.shards import shard_of
from billing.credits.auditing import BucketReading
from billing.credits.entries import AlertEntry
from billing.credits.plan import BucketPlan, LedgerTerms
from billing.credits.rebuilding import plan_bucket
from billing.credits.twin.book import Book
from billing.credits.values import Balance, Overdue, SettleOutcome, SettleReply, StoredHold
from billing.credits.verbs import Verbs
from tests.contract.laws import assert_laws
from tests.contract.operations import Operation
from tests.contract.servers import SHARDS
from tests.contract.snapshots import ServerReader, Snapshot, TwinReader
from tests.contract.twins import TwinServer

#: How the buckets of a walk are made: no lease or settled id ends by itself while it goes on, and outboxes get full.
OPTIONS: Final[Mapping[str, Any]] = {
    "lease_seconds": 86_400.0,
    "settled_retention_seconds": 86_400.0,
    "outbox_entries_max": 60,
}
#: Verbs that a caller sends again whose answer was lost.
SENT_AGAIN: Final = frozenset(
    {"reserve", "settle", "release", "renew", "expire", "grant", "void", "adjust", "set_terms", "stage", "assert_hold"}
    | {"open_client", "post"}
)
#: What a test does to what keeps the buckets, beside calling verbs.
_HANDS: Final = ("end_lease", "end_grant", "lose_bucket", "lose_string")


class SetClock:
    """A clock that stands where it is set."""

    def __init__(self) -> None:
        self.ms = 0

    def now(self) -> datetime:
        """Return the instant."""
        return from_milliseconds(self.ms)

    def monotonic(self) -> float:
        """Return the same in seconds."""
        return self.ms / 1_000


class Difference(AssertionError):
    """Buckets and twin disagree."""


@dataclass(frozen=True, slots=True)
class Rebuild:
    """A rebuild that is the same for both: `closed` says whether its shard is closed before."""

    epoch: int
    plan: BucketPlan
    closed: bool


class Pair:
    """Buckets on a server and their twin, for clients whose shards nobody else touches meanwhile."""

    def __init__(
        self, keeper: Any, clients: Sequence[str], *, shards: int = SHARDS, verified: bool = True, **changes: Any
    ) -> None:
        self._options = options = {**OPTIONS, **changes}
        self._clients = tuple(clients)
        self._keeper, self._buckets = keeper, keeper.buckets(**options, verified=verified)
        self._reader = ServerReader(self._buckets)
        self._clock = SetClock()
        self._clock.ms = self._buckets.time_ms()
        self._memory = TwinServer(self._clock, shards=shards)
        self.twin = self._memory.buckets(**options)
        self._our_reader = TwinReader(self._memory, self.twin)
        #: The longest from one step's end to the next one's: so far apart are the two sides' moments.
        self._slack_ms = 0
        #: What was done, with its outcome, how often.
        self.done: Counter[str] = Counter()
        for client_id in clients:
            self.compare(client_id)

    def step(self, operation: Operation) -> None:
        """Do an operation to both and compare the replies, then all that its client has. Raises `Difference`."""
        rebuild = self._rebuild(operation) if operation.verb == "rebuild_as" else None
        operation = self._of_epoch(operation) if operation.verb == "post" else operation
        before_ms = self._clock.ms
        theirs = apply(self._keeper, self._buckets, operation, rebuild)
        self._clock.ms = moment(theirs, before_ms)
        ours = apply(self._memory, self.twin, operation, rebuild)
        self.done[f"{operation.verb} {_outcome(ours)}"] += 1
        self.compare(operation.client_id, (theirs, ours))

    def step_again(self, operation: Operation) -> None:
        """Do an operation to the buckets twice, as after an answer that was lost, and to the twin once.

        The first answer, and all that its client has, must be as if it had come once. Raises `Difference`.
        """
        operation = self._of_epoch(operation) if operation.verb == "post" else operation
        before_ms = self._clock.ms
        theirs = apply(self._keeper, self._buckets, operation)
        apply(self._keeper, self._buckets, operation)
        self._clock.ms = moment(theirs, before_ms)
        ours = apply(self._memory, self.twin, operation)
        self.done[f"{operation.verb} {_outcome(ours)}, sent twice"] += 1
        self.compare(operation.client_id, (theirs, ours))

    def restarted(self, keeper: Any) -> None:
        """Go on after the server was killed and started again: nothing is trusted, and nothing is lost."""
        self._memory.memory.restart()
        self._buckets = keeper.buckets(**self._options, verified=False)
        self._reader = ServerReader(self._buckets, self._reader)
        for client_id in self._clients:
            self.compare(client_id)

    def compare(self, client_id: str, replies: tuple[object, object] = (None, None)) -> None:
        """Compare two replies, and all there is of a client and of its shard. Raises `Difference`."""
        before_ms = self._clock.ms
        ours = self._our_reader.read(client_id)
        now_ms, theirs = self._reader.read(client_id, list(ours.holds))
        self._slack_ms = max(self._slack_ms, now_ms - before_ms)
        self._clock.ms = now_ms
        same("reply", *replies, self._slack_ms)
        for what in Snapshot.__slots__:
            same(what, getattr(theirs, what), getattr(ours, what), self._slack_ms)
        balance = ours.reading.balance
        # What is put back though nothing was lost is too much, until it is taken away again.
        if balance is not None and not any(posted.restored for posted in balance.posted.values()):
            assert_laws(balance)

    def _of_epoch(self, operation: Operation) -> Operation:
        """Return a posting to the epoch that the bucket has: 1 stands for it."""
        client_id, later, rows = operation.arguments
        epoch = max(1, self.twin.epochs([client_id])[client_id])
        return replace(operation, arguments=(client_id, epoch + later - 1, rows))

    def _rebuild(self, operation: Operation) -> Rebuild:
        """Plan a bucket of what the twin's has: as good as any, and the same for both."""
        client_id, later = operation.arguments
        epoch = max(1, self.twin.epochs([client_id])[client_id] + later)
        shard = self._memory.memory.shards[shard_of(client_id, self.twin.shards)]
        book = shard.books.get(client_id)
        holds = self.twin.held(client_id)
        accounts = {} if book is None else book.accounts
        plan = plan_bucket(
            grants=[(grant, accounts[grant].granted) for grant in sorted(accounts)],
            spent={} if book is None else _of_log(book),
            holds=[(hold.run_id, hold.credits) for hold in holds],
            lent={hold.run_id: hold.grants for hold in holds},
            known=LedgerTerms(
                now_ms=self._clock.ms,
                client=LedgerTerms().client if book is None else book.terms,
                grants={grant: account.terms for grant, account in accounts.items()},
                adjustments={} if book is None else book.adjustments,
                claims={hold.run_id: (hold.sku, hold.created_ms) for hold in holds},
            ),
        )
        return Rebuild(epoch, plan, operation.keywords["closed"])


def _of_log(book: Book) -> dict[int, int]:
    """Return what the log says that each grant has paid, as a bucket tells it."""
    paid = {grant: account.spent + book.beyond.get(grant, 0) for grant, account in book.accounts.items()}
    strangers = {grant: credits_ for grant, credits_ in book.beyond.items() if grant not in paid}
    return paid | strangers | {NO_GRANT: book.debt_settled - sum(book.beyond.values())}


def same(what: str, theirs: object, ours: object, slack_ms: int | None = None) -> None:
    """Compare two values; a moment of the server's is the twin's or after it, by the slack at most, if one is told.

    Raises `Difference`.
    """
    their_moments: list[int] = []
    our_moments: list[int] = []
    equal = _timeless(theirs, their_moments) == _timeless(ours, our_moments)
    apart = [their - our for their, our in zip(their_moments, our_moments, strict=False)]
    if not equal or any(ms < 0 or (slack_ms is not None and ms > slack_ms) for ms in apart):
        message = f"{what}, moments {apart} within {slack_ms} ms:\n  buckets {theirs!r}\n  twin    {ours!r}"
        raise Difference(message)


def apply(keeper: Any, buckets: Verbs, operation: Operation, rebuild: Rebuild | None = None) -> object:
    """Do an operation; what it raises is an answer too."""
    verb, arguments = operation.verb, operation.arguments
    try:
        if rebuild is not None:
            return _rebuilt(buckets, operation.client_id, rebuild)
        if verb == "forget_oldest":
            return _forget_oldest(buckets, *arguments)
        if verb == "lapse":
            lapsed = sorted(buckets.lapse(*arguments), key=repr)
            buckets.forget_lapsed(lapsed[::2])
            return lapsed
        found: object = getattr(keeper if verb in _HANDS else buckets, verb)(*arguments, **operation.keywords)
    except BillingError as error:
        return type(error), str(error)
    if isinstance(found, Overdue):
        return found.paused, {hold.run_id: hold for hold in found.held}
    return found


def _rebuilt(buckets: Verbs, client_id: str, rebuild: Rebuild) -> object:
    shard = shard_of(client_id, buckets.shards)
    if rebuild.closed:
        buckets.close(shard)
    _, server = buckets.server_of(shard)
    asserts = buckets.asserts_of(shard)
    outcome = buckets.rebuild(client_id, rebuild.epoch, rebuild.plan, server=server, asserts=asserts)
    return outcome, buckets.verify(shard, expected=server, asserts=asserts)


def _forget_oldest(buckets: Verbs, shard: int, count: int) -> list[bytes]:
    found = buckets.outbox(shard, older_than_ms=0, count=count)
    buckets.forget([(shard, entry.entry_id) for entry in found])
    return [entry.event for entry in found]


def moment(reply: object, before_ms: int) -> int:
    """Return when the server did a step: a charge says it, else it was at the moment before or later."""
    if isinstance(reply, SettleReply) and reply.outcome is SettleOutcome.SETTLED:
        return int(json.loads(reply.event or b"")["occurred_at"])
    return before_ms


def _outcome(reply: object) -> str:
    found = getattr(reply, "outcome", reply)
    if isinstance(reply, SettleReply):
        return f"{reply.outcome.value}{' late' if reply.late else ''}{' debt' if reply.debt else ''}"
    if isinstance(found, list | tuple):
        found = found[0] if found else None
    return str(getattr(found, "value", getattr(found, "__name__", bool(found))))


def _timeless(value: object, moments: list[int]) -> object:
    """Return a value without its moments, which are put aside, and without the ids that a server gives."""
    match value:
        case SettleReply():
            found: object = (value.outcome, value.event, bool(value.entry_id), value.late, value.debt)
            return found, value.settlement_id
        case StoredHold():
            moments += [value.created_ms, value.deadline_ms]
            found = replace(value, created_ms=0, deadline_ms=0)
        case AlertEntry():
            moments.append(value.occurred_ms)
            found = replace(value, occurred_ms=0, entry_id="", server="")
        case BucketReading():
            moments.append(value.oldest_deadline_ms)
            found = replace(value, at_ms=0, oldest_deadline_ms=0, balance=_unvoided(value.balance, moments))
        case Mapping():
            keys = sorted(value, key=lambda key: key.hex if isinstance(key, UUID) else key)
            found = {key: _timeless(value[key], moments) for key in keys}
        case list() | tuple():
            found = [_timeless(one, moments) for one in value]
        case _:
            found = value
    return found


def _unvoided(balance: Balance | None, moments: list[int]) -> Balance | None:
    """Put aside since when grants are voided."""
    if balance is None:
        return None
    moments += [terms.voided_ms for terms in balance.grant_terms.values() if terms.voided_ms]
    terms = {grant: replace(one, voided_ms=1) if one.voided_ms else one for grant, one in balance.grant_terms.items()}
    return replace(balance, grant_terms=terms)
