"""The verbs of buckets, whoever keeps them: `Buckets` on a server, or the twin in memory.

Both have the same arguments, outcomes, values, errors and event bytes; `tests/contract` runs one suite on all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol
from uuid import UUID

from billing.credits.auditing import HOLDS_MAX, BucketReading
from billing.credits.entries import AlertEntry, OutboxEntry
from billing.credits.granting import AdjustReply, Lapsed, TermsOutcome, VoidOutcome
from billing.credits.plan import BucketPlan
from billing.credits.posting import Posting, PostOutcome
from billing.credits.terms import ORDINARY, ClientTerms, GrantTerms
from billing.credits.values import (
    AssertOutcome,
    Balance,
    ExpireOutcome,
    GrantOutcome,
    Hold,
    OpenOutcome,
    Overdue,
    RebuildOutcome,
    ReleaseOutcome,
    RenewOutcome,
    ReserveReply,
    Settlement,
    SettleReply,
    StoredHold,
)


class RunVerbs(Protocol):
    """What happens to a run: it reserves before its work, and settles, releases or expires afterwards."""

    def reserve(self, hold: Hold, *, forget: Sequence[tuple[int, str]] = ()) -> ReserveReply:
        """Hold credits for an attempt."""
        ...

    def settle(self, settlement: Settlement) -> SettleReply:
        """Charge a run that succeeded and write its event into the outbox, in one step (L3)."""
        ...

    def release(self, client_id: str, run_id: UUID, token: str) -> ReleaseOutcome:
        """Give back the hold of an attempt that did not succeed."""
        ...

    def renew(self, items: Sequence[tuple[str, UUID, float | None]]) -> list[RenewOutcome]:
        """Move the deadlines of running attempts forward."""
        ...

    def renew_each(self, items: Sequence[tuple[str, UUID, float | None]]) -> list[RenewOutcome | Exception]:
        """Do the same, with the error of each that failed in its place."""
        ...

    def stage(self, client_id: str, run_id: UUID, token: str, lines: bytes, *, head: bytes = b"") -> bool:
        """Replace the draft lines of a held run."""
        ...

    def overdue(self, shard: int, count: int) -> Overdue:
        """Sweep a shard: name holds whose lease ran out."""
        ...

    def expire(self, client_id: str, run_id: UUID) -> ExpireOutcome:
        """Give back a hold whose deadline has passed."""
        ...


class GrantVerbs(Protocol):
    """What changes a client's credits apart from its runs."""

    def open_client(self, client_id: str, epoch: int = 1) -> OpenOutcome:
        """Make the empty bucket of a new client."""
        ...

    def grant(self, client_id: str, grant_id: int, credits_: int, terms: GrantTerms = ORDINARY) -> GrantOutcome:
        """Add an allotment."""
        ...

    def void(self, client_id: str, grant_id: int) -> VoidOutcome:
        """Take back what a grant has available."""
        ...

    def adjust(self, client_id: str, adjustment_id: int, credits_: int) -> AdjustReply:
        """Take credits away, in burn order."""
        ...

    def set_terms(self, client_id: str, terms: ClientTerms) -> TermsOutcome:
        """Give a client its state and its overdraft limit."""
        ...

    def post(self, client_id: str, epoch: int, rows: Sequence[Posting]) -> PostOutcome:
        """Bring a bucket of this epoch to what the log says beyond its settles."""
        ...

    def endings_due(self, shards: Sequence[int] | None = None) -> list[int]:
        """Return which of these shards (None: of all) have grants to look at."""
        ...

    def lapse(self, shard: int, count: int) -> list[Lapsed]:
        """Move what ended grants still have to what expired; return those whose amounts are final."""
        ...

    def forget_lapsed(self, grants: Sequence[Lapsed]) -> None:
        """Look at these grants no more."""
        ...


class ReadingVerbs(Protocol):
    """What changes no credits: balances, the outbox, the alerts."""

    def balance(self, client_id: str) -> Balance | None:
        """Return the bucket of a client, None if there is none."""
        ...

    def audit(self, client_ids: Sequence[str], *, holds_max: int = HOLDS_MAX) -> dict[str, BucketReading]:
        """Return the bucket of each client, with what its holds were lent where its shard has no more than so many."""
        ...

    def balances(self, client_ids: Sequence[str]) -> dict[str, Balance]:
        """Return the balance of each client that has a bucket on a trusted shard."""
        ...

    def outbox(self, shard: int, *, older_than_ms: int, count: int) -> list[OutboxEntry]:
        """Return the oldest events of a shard that nobody has confirmed."""
        ...

    def outbox_depth(self, shard: int) -> int:
        """Return how many events of a shard wait for their confirm."""
        ...

    def oldest_outbox_ms(self, shards: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Return of each shard how many events wait, and the age in ms of the oldest one."""
        ...

    def outboxes_since_ms(self, shards: Sequence[int]) -> Mapping[int, int | None]:
        """Return of each shard when the oldest entry of its outbox was written; None: it is empty."""
        ...

    def forget(self, entries: Sequence[tuple[int, str]]) -> None:
        """Remove confirmed entries of the outbox."""
        ...

    def forget_reached(self, entries: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
        """Remove confirmed entries of the outbox; return those that are to be removed later."""
        ...

    def alerts(self, *, count: int) -> list[AlertEntry]:
        """Return the oldest alerts of every shard."""
        ...

    def ends_told(self, client_ids: Sequence[str]) -> set[str]:
        """Return those of these clients whose end was told since a grant last left them something."""
        ...

    def forget_alerts(self, entries: Sequence[AlertEntry]) -> None:
        """Remove exactly these alerts."""
        ...


class TrustVerbs(Protocol):
    """Which shards are trusted, and how a lost one comes back (L6)."""

    def server_of(self, shard: int) -> tuple[str | None, str]:
        """Return the server that the shard is verified on, if any, and the one that answers now."""
        ...

    def asserts_of(self, shard: int) -> int:
        """Return how many forced holds were ever written without a bucket."""
        ...

    def time_ms(self) -> int:
        """Return the clock by which deadlines and expiries are judged."""
        ...

    def close(self, shard: int) -> None:
        """Trust a shard's buckets no longer."""
        ...

    def verify(self, shard: int, *, expected: str | None, asserts: int | None = None) -> bool:
        """Open a shard on the server that answers now."""
        ...

    def assert_hold(self, hold: Hold) -> AssertOutcome:
        """Renew a running attempt's hold, or write it again where it was lost."""
        ...

    def held(self, client_id: str | None, shard: int | None = None, *, among: int | None = None) -> list[StoredHold]:
        """Return the holds of a client, or of a whole shard, oldest deadline first; of so many first ones at most."""
        ...

    def mark_logged(self, client_id: str, run_id: UUID, settlement_id: str) -> None:
        """Turn a hold that survived into a settled run, since the log has it."""
        ...

    def mark_all_logged(self, runs: Sequence[tuple[str, UUID, str]]) -> None:
        """Do so for (client id, run id, settlement id) of many."""
        ...

    def epochs(self, client_ids: Sequence[str]) -> Mapping[str, int]:
        """Return the epoch of each client's bucket, 0 where there is none."""
        ...

    def repaid(self, grants: Mapping[str, Sequence[int]]) -> dict[str, dict[int, int]]:
        """Return how much debt each of some clients' grants has repaid, as far as a bucket says so."""
        ...

    def rebuild(self, client_id: str, epoch: int, plan: BucketPlan, *, server: str, asserts: int) -> RebuildOutcome:
        """Write a client's bucket, and what it lends to the surviving holds, from a plan."""
        ...

    def rebuild_all(self, plans: Iterable[tuple[str, int, BucketPlan]], *, server: str, asserts: int) -> RebuildOutcome:
        """Do so for (client id, epoch, plan) of a shard; end at the first outcome that is another than `REBUILT`."""
        ...


class DryRunVerbs(Protocol):
    """What dry runs count; no credits are in it."""

    def count(self, addition_id: str, counts: Mapping[str, int]) -> None:
        """Add to the counts, by field, once per addition."""
        ...

    def counts(self) -> dict[str, int]:
        """Return all counts by field."""
        ...

    def forget_counts(self) -> None:
        """Begin anew."""
        ...


class TrailVerbs(Protocol):
    """What is kept of deliveries that were not charged; no credits are in it."""

    def add_notes(self, notes: Sequence[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """Add notes, each to the trail of its shard; return those that are to be added later."""
        ...

    def notes(self, shard: int) -> list[bytes]:
        """Return the notes of a shard's trail, oldest first."""
        ...


class Verbs(RunVerbs, GrantVerbs, ReadingVerbs, TrustVerbs, DryRunVerbs, TrailVerbs, Protocol):
    """All of them: what the rest of billing asks of buckets."""

    shards: int

    def node_of(self, shard: int) -> str:
        """Return the name of the server that has a shard, as far as it is known here: nobody is asked."""
        ...
