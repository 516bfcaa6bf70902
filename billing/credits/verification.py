"""Which shards are trusted, and how a lost one comes back: close, assert holds, rebuild, verify (L6).

A rebuild reads `server_of` and `asserts_of` first and passes both on: if another server answers meanwhile, or one more
hold was asserted, the later steps refuse and the rebuild begins again. Keeping rebuilders apart (lock, epoch in the
ledger) is the caller's work; a bucket of a newer epoch is never overwritten.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from billing.core.credits import check_amount
from billing.core.errors import Conflict
from billing.core.shards import shard_of
from billing.credits.calling import Calling
from billing.credits.plan import BucketPlan
from billing.credits.records import check_logged, claim_of, read_hold
from billing.credits.scripts import Command, slices
from billing.credits.values import AssertOutcome, Hold, RebuildOutcome, StoredHold

_SLICE: Final = 500
_RUN_ID: Final = re.compile(r"run_id:(\w+)")


class Verification(Calling):
    """The trust in each shard."""

    def server_of(self, shard: int) -> tuple[str | None, str]:
        """Return the run id of the server that the shard is verified on, if any, and of the one that answers now."""
        verified, information = self._scripts.run_all([("GET", self._keys[shard].server), ("INFO", "server")])
        return None if verified is None else verified.decode(), run_id_of(information)

    def asserts_of(self, shard: int) -> int:
        """Return how many forced holds were ever written without a bucket; a plan is good while it stays the same."""
        return int(self._scripts.run(("GET", self._keys[shard].asserts)) or 0)

    def time_ms(self) -> int:
        """Return the server's clock."""
        seconds, microseconds = self._scripts.run(("TIME",))
        return int(seconds) * 1_000 + int(microseconds) // 1_000

    def close(self, shard: int) -> None:
        """Trust a shard's buckets no longer: every verb answers `RECOVERING` until it is verified again."""
        self._scripts.run(("DEL", self._keys[shard].server))

    def verify(self, shard: int, *, expected: str | None, asserts: int | None = None) -> bool:
        """Open a shard on the server that answers now, if that is the `expected` one (None: whichever it is).

        With `asserts`, only if no hold was asserted since it was read. False: nothing was changed, rebuild again.
        """
        keys = self._keys[shard]
        arguments = (expected or "", "" if asserts is None else asserts)
        return bool(self._scripts.run(self._command("verify", (keys.server, keys.asserts), *arguments)))

    def assert_hold(self, hold: Hold) -> AssertOutcome:
        """Renew a running attempt's hold, or write it again where it was lost; never refused for lack of credits.

        While the shard recovers, a hold whose takeover was lost is the later attempt's again, with all its credits.
        The token `*` stands for whichever attempt is running. Raises `Conflict` for a run of another client.
        """
        keys = self._keys_of(hold.client_id)
        run_keys = (keys.bucket + hold.client_id, keys.run + hold.run_id.hex, keys.leases, keys.server, keys.asserts)
        answer = self._call(
            "assert_hold",
            run_keys,
            hold.run_id.hex,
            check_amount("credits", hold.credits, minimum=0),
            hold.token,
            claim_of(hold),
            self._milliseconds(hold.lease_seconds),
        )
        if answer == "CONFLICT":
            message = f"run_id: '{hold.run_id}': belongs to another client than {hold.client_id!r}"
            raise Conflict(message)
        return AssertOutcome(answer)

    def held(self, client_id: str | None, shard: int | None = None, *, among: int | None = None) -> list[StoredHold]:
        """Return the holds of a client, or of a whole shard, oldest deadline first; each as it stood when read.

        `among`: only so many of the shard are looked at, those whose lease ends first. Works on a recovering shard
        too, where it tells a rebuild what survived.
        """
        if client_id is not None:
            shard = shard_of(client_id, self.shards)
        if shard is None:
            message = "either a client or a shard"
            raise TypeError(message)
        keys = self._keys[shard]
        leases = self._scripts.run(("ZRANGE", keys.leases, 0, -1 if among is None else among - 1, "WITHSCORES"))
        pairs = [(run_id.decode(), deadline) for run_id, deadline in _pairs(leases)]
        holds = []
        for start in range(0, len(pairs), _SLICE):
            part = pairs[start : start + _SLICE]
            records = self._scripts.run(("MGET", *(keys.run + run_id for run_id, _ in part)))
            for (run_id, deadline_ms), record in zip(part, records, strict=True):
                hold = read_hold(run_id, deadline_ms, record)
                if hold is not None and client_id in (None, hold.client_id):
                    holds.append(hold)
        return holds

    def mark_logged(self, client_id: str, run_id: UUID, settlement_id: str) -> None:
        """Turn a hold that survived into a settled run, since the log has it: no reaper settles it again (L4).

        For a rebuild, before it plans; no bucket is touched, so that it works while the shard is recovering. A hold
        that an open bucket lent to is left alone: a settle ends it. Raises `Conflict` for a run of another client.
        """
        self.mark_all_logged([(client_id, run_id, settlement_id)])

    def mark_all_logged(self, runs: Sequence[tuple[str, UUID, str]]) -> None:
        """Do so for (client id, run id, settlement id) of many, in one round trip for some hundreds of them."""
        for start in range(0, len(runs), _SLICE):
            part = runs[start : start + _SLICE]
            answers = self._scripts.run_all([self._mark_logged_command(*each) for each in part])
            for (client_id, run_id, _), answer in zip(part, answers, strict=True):
                if answer == b"CONFLICT":
                    message = f"run_id: '{run_id}': belongs to another client than {client_id!r}"
                    raise Conflict(message)

    def _mark_logged_command(self, client_id: str, run_id: UUID, settlement_id: str) -> Command:
        check_logged(settlement_id)
        keys = self._keys_of(client_id)
        run_keys = (keys.bucket + client_id, keys.run + run_id.hex, keys.leases, keys.server)
        return self._command("mark_logged", run_keys, run_id.hex, client_id, settlement_id, self._retention_ms)

    def epochs(self, client_ids: Sequence[str]) -> dict[str, int]:
        """Return the epoch of each client's bucket, 0 where there is none; works on a recovering shard too."""
        by_shard: dict[int, list[str]] = collections.defaultdict(list)
        for client_id in client_ids:
            by_shard[shard_of(client_id, self.shards)].append(client_id)
        epochs: dict[str, int] = {}
        for shard, members in by_shard.items():
            prefix = self._keys[shard].bucket
            for start in range(0, len(members), _SLICE):
                part = members[start : start + _SLICE]
                # A key of another type has no value for MGET: like any bucket that billing did not write, no epoch.
                found = self._scripts.run(("MGET", *(prefix + client_id for client_id in part)))
                for client_id, bucket in zip(part, found, strict=True):
                    epoch = (bucket or b"").partition(b" ")[0]
                    epochs[client_id] = int(epoch) if epoch.isdigit() else 0
        return epochs

    def repaid(self, grants: Mapping[str, Sequence[int]]) -> dict[str, dict[int, int]]:
        """Return how much debt each of some clients' grants has repaid, as far as a bucket that is still there says so.

        Works on a recovering shard too: the log does not know it, and a rebuild would else have to guess.
        """
        found: dict[str, dict[int, int]] = {}
        asked = [client_id for client_id, ids in grants.items() if ids]
        for start in range(0, len(asked), _SLICE):
            part = asked[start : start + _SLICE]
            commands = [
                ("HMGET", self._keys_of(client_id).grants + client_id, *(f"r:{grant}" for grant in grants[client_id]))
                for client_id in part
            ]
            for client_id, parts in zip(part, self._scripts.run_all(commands, any_type=True), strict=True):
                known = zip(grants[client_id], parts or (), strict=False)
                found[client_id] = {grant: int(text) for grant, text in known if text is not None and text.isdigit()}
        return found

    def rebuild(self, client_id: str, epoch: int, plan: BucketPlan, *, server: str, asserts: int) -> RebuildOutcome:
        """Write a client's bucket and what it lends to the surviving holds, from a plan (`plan_bucket`).

        `server` and `asserts` are what `server_of` and `asserts_of` said before the holds were read.
        """
        return self.rebuild_all([(client_id, epoch, plan)], server=server, asserts=asserts)

    def rebuild_all(self, plans: Iterable[tuple[str, int, BucketPlan]], *, server: str, asserts: int) -> RebuildOutcome:
        """Do so for (client id, epoch, plan) of a shard, many in one round trip; return the first other outcome.

        It ends there: of the plans behind that one some are written, which the next rebuild overwrites.
        """
        commands = (self._rebuild_command(*each, server=server, asserts=asserts) for each in plans)
        for part in slices(commands, _SLICE):
            for outcome in self._rebuild_slice(part):
                if outcome is not RebuildOutcome.REBUILT:
                    return outcome
        return RebuildOutcome.REBUILT

    def _rebuild_slice(self, commands: Sequence[Command]) -> list[RebuildOutcome]:
        return [RebuildOutcome(answer.decode()) for answer in self._scripts.run_all(commands)]

    def _rebuild_command(self, client_id: str, epoch: int, plan: BucketPlan, *, server: str, asserts: int) -> Command:
        check_amount("epoch", epoch)
        keys = self._keys_of(client_id)
        fields = plan.fields()
        return self._command(
            "rebuild",
            (
                keys.bucket + client_id,
                keys.grants + client_id,
                keys.server,
                keys.asserts,
                keys.expiries,
                keys.alerts,
                *(keys.run + run.hex for run in plan.holds),
            ),
            epoch,
            server,
            asserts,
            plan.bucket(),
            self._percents,
            client_id,
            len(fields),
            *(part for field in fields.items() for part in field),
            len(plan.endings),
            *(part for grant_id, at_ms in plan.endings.items() for part in (at_ms, f"{grant_id} {client_id}")),
            *(" ".join(f"{grant}:{part}" for grant, part in shares.items()) for shares in plan.holds.values()),
        )


def run_id_of(information: Any) -> str:
    """Return the run id of the server that answered INFO: redis-py reads some of its answers, and others not."""
    if isinstance(information, dict):
        return str(information["run_id"])
    found = _RUN_ID.search(information.decode())
    return found[1] if found else ""


def _pairs(leases: list[Any]) -> list[tuple[bytes, int]]:
    """Return (run id, deadline): RESP2 answers a flat list, RESP3 pairs."""
    flat = [part for lease in leases for part in (lease if isinstance(lease, list | tuple) else (lease,))]
    return [(flat[i], int(float(flat[i + 1]))) for i in range(0, len(flat), 2)]
