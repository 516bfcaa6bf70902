"""Buckets: what a client may spend, enforced by one atomic call per verb (L1, L2).

Every verb may be called again after a lost answer: by run id or grant id it changes nothing the second time. On a shard
whose server is not the verified one every verb answers `RECOVERING` and changes nothing (L6).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from uuid import UUID

from msgspec import structs

from billing.connections.redis import Client
from billing.core.credits import check_amount
from billing.core.errors import Conflict, Corrupt, Recovering
from billing.core.shards import shard_of
from billing.credits.alert_stream import AlertStream
from billing.credits.auditing import Auditing
from billing.credits.dry_runs import DryRunCounts
from billing.credits.granting import Granting
from billing.credits.keys import ShardKeys, shard_keys
from billing.credits.outbox import Outbox
from billing.credits.records import check_settlement, claim_of, read_balance, read_hold
from billing.credits.scripts import Command, Scripts
from billing.credits.tracing import Tracing
from billing.credits.trail import Trail
from billing.credits.values import (
    Balance,
    ExpireOutcome,
    Hold,
    OpenOutcome,
    Overdue,
    ReleaseOutcome,
    RenewOutcome,
    ReserveOutcome,
    ReserveReply,
    Settlement,
    SettleOutcome,
    SettleReply,
)
from billing.credits.verification import Verification

logger = logging.getLogger(__name__)


class Buckets(Verification, Granting, Outbox, Auditing, AlertStream, DryRunCounts, Trail, Tracing):
    """The buckets on one Redis client. Threads may share it; processes may not."""

    def __init__(
        self,
        client: Client,
        *,
        shards: int,
        lease_seconds: float,
        settled_retention_seconds: float,
        outbox_entries_max: int,
        alert_percents: Sequence[int] = (20, 5),
    ) -> None:
        self.shards = shards
        self._scripts = Scripts(client)
        self._functions = self._scripts.functions
        self._keys: tuple[ShardKeys, ...] = tuple(shard_keys(shard) for shard in range(shards))
        self._lease_ms = round(lease_seconds * 1_000)
        self._retention_ms = round(settled_retention_seconds * 1_000)
        self._outbox_entries_max = outbox_entries_max
        self._percents = ",".join(map(str, alert_percents))

    def reserve(self, hold: Hold, *, forget: Sequence[tuple[int, str]] = ()) -> ReserveReply:
        """Hold credits for an attempt. `forget`: confirmed outbox entries whose removal rides along, one round trip.

        Those of other nodes do not ride, and one whose removal fails decides nothing: the reply names what is left.
        """
        credits_ = check_amount("credits", hold.credits, minimum=0)
        keys = self._keys[shard_of(hold.client_id, self.shards)]
        lease_ms = self._milliseconds(hold.lease_seconds)
        request = f"{credits_}\n{lease_ms}\n{self._outbox_entries_max}\n{hold.token}\n".encode() + claim_of(hold)
        command: Command = (
            "FCALL",
            self._functions["reserve"],
            6,
            keys.bucket + hold.client_id,
            keys.run + hold.run_id.hex,
            keys.leases,
            keys.outbox,
            keys.server,
            keys.alerts,
            request,
        )
        if not forget:
            return self._reserved(hold, self._scripts.run(command))
        answer, left = self._run_with_riders(command, shard_of(hold.client_id, self.shards), forget)
        return structs.replace(self._reserved(hold, answer), left=left)

    def _reserved(self, hold: Hold, answer: bytes | list[bytes]) -> ReserveReply:
        credits_ = hold.credits
        if answer == b"HELD":
            return ReserveReply(
                outcome=ReserveOutcome.HELD, required=credits_, held=credits_, price_version=hold.price_version
            )
        if isinstance(answer, bytes):
            return ReserveReply(outcome=ReserveOutcome(answer.decode()), required=credits_)
        if answer[0] == b"INSUFFICIENT":
            return ReserveReply(outcome=ReserveOutcome.INSUFFICIENT, required=credits_, available=int(answer[1]))
        _, held, price_version, head, lines = answer
        return ReserveReply(
            outcome=ReserveOutcome.TAKEN_OVER,
            required=credits_,
            held=int(held),
            price_version=int(price_version),
            head=head,
            lines=lines,
        )

    def settle(self, settlement: Settlement) -> SettleReply:
        """Charge a run that succeeded and write its event into the outbox, in one step (L3).

        Raises `Conflict` for a run of another client, `InvalidValue` for amounts out of bounds or without lines.
        """
        command = self._settle_command(settlement)
        answer: bytes = self._scripts.run(command)
        header, _, text = answer.partition(b"\n")
        word, *fields = header.split()
        if word == b"SETTLED":
            return SettleReply(
                outcome=SettleOutcome.SETTLED,
                event=text,
                entry_id=fields[0].decode(),
                late=fields[1] == b"1",
                debt=int(fields[2]),
                settlement_id=settlement.settlement_id,
            )
        if word == b"ALREADY":
            found = len(fields) > 1  # the entry of this very settlement is still in the outbox
            return SettleReply(
                outcome=SettleOutcome.ALREADY,
                event=text if found else None,
                entry_id=fields[1].decode() if found else None,
                settlement_id=fields[0].decode(),
            )
        if word == b"CONFLICT":
            message = f"run_id: '{settlement.run_id}': belongs to another client than {settlement.client_id!r}"
            raise Conflict(message)
        return SettleReply(outcome=SettleOutcome(word.decode()))

    def _settle_command(self, settlement: Settlement) -> Command:
        check_settlement(settlement)
        keys = self._keys[shard_of(settlement.client_id, self.shards)]
        run_id = settlement.run_id.hex
        lines = [part for line in zip(settlement.fragments, settlement.amounts, strict=True) for part in line]
        return (
            "FCALL",
            self._functions["settle"],
            7,
            keys.bucket + settlement.client_id,
            keys.run + run_id,
            keys.leases,
            keys.outbox,
            keys.server,
            keys.grants + settlement.client_id,
            keys.alerts,
            run_id,
            settlement.client_id,
            settlement.settlement_id,
            settlement.head,
            self._retention_ms,
            *lines,
        )

    def release(self, client_id: str, run_id: UUID, token: str) -> ReleaseOutcome:
        """Give back the hold of an attempt that did not succeed. A stale attempt's token leaves it alone (L4).

        A run of another client is an unknown one: `NOTHING`.
        """
        keys = self._keys_of(client_id)
        bucket_keys = (keys.bucket + client_id, keys.grants + client_id)
        run_keys = (*bucket_keys, keys.run + run_id.hex, keys.leases, keys.server)
        return ReleaseOutcome(self._call("release", run_keys, run_id.hex, token, client_id))

    def renew(self, items: Sequence[tuple[str, UUID, float | None]]) -> list[RenewOutcome]:
        """Move the deadlines of running attempts: (client id, run id, lease in seconds or None). One round trip.

        Raises the first failure, once all others are renewed.
        """
        outcomes: list[RenewOutcome] = []
        for outcome in self.renew_each(items):
            if isinstance(outcome, Exception):
                raise outcome
            outcomes.append(outcome)
        return outcomes

    def renew_each(self, items: Sequence[tuple[str, UUID, float | None]]) -> list[RenewOutcome | Exception]:
        """Do the same, and return the error of each that failed in its place: none hides another's outcome (L10)."""
        commands = []
        for client_id, run_id, lease_seconds in items:
            keys = self._keys_of(client_id)
            run_keys = (keys.run + run_id.hex, keys.leases, keys.server)
            commands.append(self._command("renew", run_keys, run_id.hex, self._milliseconds(lease_seconds)))
        answers = self._scripts.run_each(commands) if commands else []
        return [answer if isinstance(answer, Exception) else RenewOutcome(answer.decode()) for answer in answers]

    def stage(self, client_id: str, run_id: UUID, token: str, lines: bytes, *, head: bytes = b"") -> bool:
        """Replace the draft lines of a held run (and its head, if given); False if this attempt has no hold."""
        keys = self._keys_of(client_id)
        command = self._command("stage", (keys.run + run_id.hex, keys.server), token, lines, head)
        return bool(self._scripts.run(command))

    def open_client(self, client_id: str, epoch: int = 1) -> OpenOutcome:
        """Make the empty bucket of a new client; an existing one stays as it is, and what is left of a lost one."""
        check_amount("epoch", epoch)
        keys = self._keys_of(client_id)
        bucket_keys = (keys.bucket + client_id, keys.grants + client_id, keys.server)
        return OpenOutcome(self._call("open", bucket_keys, epoch))

    def overdue(self, shard: int, count: int) -> Overdue:
        """Sweep a shard: name holds whose lease ran out. After a pause in sweeping none for one lease (L5).

        A record that cannot be read is logged and its deadline moved by one lease, so that the others get their turn.
        """
        keys = self._keys[shard]
        sweep_keys = (keys.leases, keys.swept, keys.server, keys.run)
        command = self._command("overdue", sweep_keys, count, self._lease_ms, self._lease_ms // 3)
        status, *due = self._scripts.run(command)
        if status == b"PAUSED":
            return Overdue(held=[], paused=True)
        ids = [run_id.decode() for run_id in due[::2]]
        records = self._scripts.run_all([("GET", keys.run + run_id) for run_id in ids]) if ids else []
        holds = []
        for run_id, deadline, record in zip(ids, due[1::2], records, strict=True):
            try:
                hold = read_hold(run_id, int(float(deadline)), record)
            except ValueError:
                logger.exception("billing: the record %s%s cannot be read: %r", keys.run, run_id, record)
                self._call("renew", (keys.run + run_id, keys.leases, keys.server), run_id, self._lease_ms)
            else:
                holds += [] if hold is None else [hold]
        return Overdue(held=holds, paused=False)

    def expire(self, client_id: str, run_id: UUID) -> ExpireOutcome:
        """Give back a hold of this client whose deadline has passed, if its shard is swept without pauses."""
        keys = self._keys_of(client_id)
        bucket_keys = (keys.bucket + client_id, keys.grants + client_id)
        run_keys = (*bucket_keys, keys.run + run_id.hex, keys.leases, keys.swept, keys.server)
        return ExpireOutcome(self._call("expire", run_keys, run_id.hex, self._lease_ms // 3, client_id))

    def balance(self, client_id: str) -> Balance | None:
        """Return the bucket of a client, None if there is none; raises `Recovering` while it cannot be trusted.

        Raises `Corrupt` where there is a bucket that billing did not write.
        """
        keys = self._keys_of(client_id)
        bucket_keys = (keys.bucket + client_id, keys.grants + client_id, keys.server)
        status, *answer = self._scripts.run(self._command("balance", bucket_keys))
        if status == b"RECOVERING":
            message = f"client_id: {client_id!r}: the shard's balances are being rebuilt; try again"
            raise Recovering(message)
        if status == b"CORRUPT":
            raise _corrupt(client_id)
        if not answer:
            return None
        now_ms, bucket, *flat = answer
        try:
            return read_balance(client_id, bucket, flat, int(now_ms))
        except (ValueError, KeyError) as error:
            # What the script passes on unread: a field of the hash.
            raise _corrupt(client_id) from error


def _corrupt(client_id: str) -> Corrupt:
    return Corrupt(f"client_id: {client_id!r}: its bucket is not one that billing wrote; it waits for a rebuild")
