"""The laws L1 to L8 of docs/concepts.md, by number. Each raises `LawBroken` and says of what one does not hold.

At every effect are asked L1, L4, L6's trust and what is charged (L3); the others when the world is at rest: nothing is
on its way, nothing runs and nothing is owed. L9 is that it comes to rest at all, within the written bound; L10 is not
looked at. The laws of the sync (of L8: no increment twice, none lost, doubt visible) are `sync.auditor`'s; here is that
what it plans is what the fleet used.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Final

from billing.credits.values import SettleOutcome
from tests.simulation.broken import LawBroken
from tests.simulation.sync.population import METER_OF

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable, Mapping

    from billing.credits.values import Balance, Settlement, SettleReply
    from billing.events.usage_event import UsageEvent
    from tests.simulation.auditor import Auditor
    from tests.simulation.process import Process
    from tests.simulation.world import World


def l1_ceiling(client_id: str, *, asked: int, free: int) -> None:
    """`reserve` admits only what the client's usable grants cover."""
    if asked > max(free, 0):
        raise LawBroken(f"L1: {client_id} has {free} credits, and {asked} were admitted")


def l1_no_room_before_its_charge(world: World, client_id: str, run_id: uuid.UUID) -> None:
    """No hold is given back while the charge that it has kept covered is on its way to the bucket."""
    # Who was told once stays so: a later charge of the client may wait meanwhile, and a rebuild reads the log.
    is_told = run_id in world.told or world.log.is_told(client_id, run_id)
    if run_id in world.observed.succeeded and not is_told:
        raise LawBroken(f"L1: run {run_id} gave its hold back before its charge: {world.story(run_id)}")


def l2_conservation(world: World) -> None:
    """Granted + owed = available + held + spent + expired + voided, of each client."""
    for client_id in world.log.epochs:
        has = _bucket(world, client_id)
        parts = has.available + has.held + has.spent + has.expired + has.voided
        if has.granted + has.owed != parts:
            raise LawBroken(f"L2: {client_id}: granted {has.granted} + owed {has.owed} is not {parts}")


def l3_one_charge(world: World) -> None:
    """Find what succeeded in the log, once and at its cost, and nothing else."""
    auditor, log = world.observed, world.log
    if log.letters:
        raise LawBroken(f"L3: {len(log.letters)} events are refused by the log: {log.letters[0]}")
    for run_id in auditor.succeeded.keys() - log.history.keys() - auditor.excuses.excused:
        raise LawBroken(f"L3: run {run_id} succeeded and is not in the log: {world.story(run_id)}")
    for run_id in log.history.keys() - auditor.succeeded.keys():
        raise LawBroken(f"L3: run {run_id} is in the log and did not succeed: {world.story(run_id)}")
    for run_id, row in auditor.rows.items():
        cost = auditor.drafts.reaped.get(row.settlement_id, auditor.succeeded[run_id])
        if row.credits != cost:
            raise LawBroken(f"L3: run {run_id} costs {cost} and was charged {row.credits}: {world.story(run_id)}")


def l3_charges_what_was_used(auditor: Auditor, settlement: Settlement) -> None:
    """Let a worker charge what its body used, to the credit; and a reaper what the hold's draft says."""
    run_id, credits_ = settlement.run_id, sum(settlement.amounts)
    if settlement.settlement_id not in auditor.excuses.attempts:
        auditor.drafts.charged(run_id, settlement.settlement_id, credits_)
    elif credits_ != auditor.succeeded.get(run_id):
        raise LawBroken(f"L3: run {run_id} used {auditor.succeeded.get(run_id)} credits and was charged {credits_}")


def l3_none_kept_back(auditor: Auditor, run_id: uuid.UUID, process: Process) -> None:
    """Let a message whose settle was refused go only once its charge was given to the broker."""
    if run_id in process.refused & process.knows() - auditor.excuses.never_taken:
        raise LawBroken(f"L3: process {process.number} kept the charge of run {run_id} to itself")


def l4_late_without_hold(run_id: uuid.UUID, *, is_late: bool, is_held: bool) -> None:
    """Say `late` of a charge exactly where no hold was there at its settle; a direct event is of none."""
    if is_late is is_held:
        raise LawBroken(f"L4: run {run_id} says late {is_late}, and a hold was there at its settle: {is_held}")


def l4_settled_is_final(run_id: uuid.UUID, reply: SettleReply, *, is_final: bool, changed: bool) -> None:
    """Answer a second settle with the first one, as long as buckets promise to remember it, and change nothing."""
    again = is_final and reply.outcome is SettleOutcome.SETTLED
    if again or (reply.outcome is SettleOutcome.ALREADY and changed):
        raise LawBroken(f"L4: run {run_id} was settled before, and again: {reply.outcome.name}")


def l4_one_row(rows: Mapping[uuid.UUID, object], event: UsageEvent) -> None:
    """Write one settlement of a run into the log, and no other."""
    if event.run_id in rows:
        raise LawBroken(f"L4: run {event.run_id} is in the log, and was written again")


def l5_no_orphan(world: World) -> None:
    """No hold is left where nothing runs."""
    for client_id in world.log.epochs:
        if held := world.redis.buckets.held(client_id):
            raise LawBroken(f"L5: {client_id} has {len(held)} holds, and nothing runs: {held[0]}")


def l6_only_the_trusted_admit(world: World, client_id: str) -> None:
    """Let a shard admit nothing whose server is not the verified one."""
    verified, current = world.redis.buckets.server_of(world.observed.shard_of(client_id))
    if verified != current:
        raise LawBroken(f"L6: {client_id} was admitted on a shard that is not trusted")


def l6_log_is_truth(world: World) -> None:
    """Balances are what ledger and log say."""
    spent = world.observed.corrections.copy()
    for row in world.observed.rows.values():
        spent[row.client_id] += row.credits
    granted, by_grant = world.observed.granted(), paid(world)
    for client_id in world.log.epochs:
        has, left = _bucket(world, client_id), granted[client_id] - spent[client_id]
        if (has.granted, has.spent, has.held) != (granted[client_id], spent[client_id], 0):
            what = f"granted {granted[client_id]}, spent {spent[client_id]} by the log"
            raise LawBroken(f"L6: {client_id}: {what}; the bucket has {has}")
        ended = has.expired + has.voided
        if has.available + ended - has.owed != left:
            raise LawBroken(f"L6: {client_id}: {left} credits are left by the log; the bucket has {has}")
        _l6_only_what_lasts(world, client_id, has, by_grant)


def _l6_only_what_lasts(world: World, client_id: str, has: Balance, spent: Mapping[int, int]) -> None:
    """Find nothing available but of grants that go on, and nothing that may pay debt while there is any."""
    going_on = [row for row in world.log.grants_of(client_id) if not row.terms.ended_at(world.clock.ms)]
    most = sum(max(0, row.credits - spent[row.grant_id]) for row in going_on if row.terms.skus or not has.owed)
    if has.available > most:
        raise LawBroken(f"L6: {client_id}: its grants that go on have {most} left; the bucket has {has}")


def paid(world: World) -> collections.Counter[int]:
    """Return what each grant has paid by the log; grant 0 is debt, of all clients."""
    found: collections.Counter[int] = collections.Counter()
    for row in world.observed.rows.values():
        for line in row.lines:
            for share in line.grants:
                found[share.grant] += share.credits
    for made in world.log.corrections.values():
        for one in made:
            found.update(one.grants)
    return found


def l7_append_only(world: World) -> None:
    """Find each row of the history as it was when it was written, for ever."""
    log, rows = world.log, world.observed.rows
    if log.history.keys() != rows.keys():
        raise LawBroken(f"L7: {len(rows)} rows were written, the history has {len(log.history)}")
    for run_id, row in rows.items():
        now = log.history[run_id]
        if now.settlement_id != row.settlement_id or now.lines is not row.lines:
            raise LawBroken(f"L7: the row of run {run_id} is another than the one that was written")


def l8_what_is_billed_was_used(world: World) -> None:
    """Of each client, SKU and hour, and so of each period: the rows that are planned from are the log's."""
    used, books = world.observed.used, world.books
    for key in {*used, *books.usage.rows}:
        if used[key] != books.usage.rows[key].credits:
            raise LawBroken(f"L8: {used[key]} credits of {key} are in the log, {books.usage.rows[key].credits} to bill")
    books.logged.clear()
    for (client_id, sku, _), credits_ in used.items():
        books.logged[client_id, METER_OF.get(sku, "credits")] += credits_


def l8_each_hour_once(world: World) -> None:
    """Of each client, SKU and hour, the parts of all increments are what is planned: none twice, none left out."""
    planned: collections.Counter[tuple[str, str, object]] = collections.Counter()
    for number, parts in world.books.log.parts.items():
        client_id = world.books.log.increments[number].client_id
        for part in parts:
            planned[client_id, part.sku, part.hour] += part.credits_to - part.credits_from
    for key, row in world.books.usage.rows.items():
        if planned[key] != row.planned:
            raise LawBroken(f"L8: {planned[key]} credits of {key} are in increments, {row.planned} are planned")


def _bucket(world: World, client_id: str) -> Balance:
    found = world.redis.buckets.balance(client_id)
    if found is None:
        raise LawBroken(f"L6: {client_id} has no bucket")
    return found


#: In this order when the world is at rest: the first that does not hold says most.
AT_REST: Final[tuple[Callable[[World], None], ...]] = (
    l3_one_charge,
    l7_append_only,
    l5_no_orphan,
    l2_conservation,
    l6_log_is_truth,
    l8_what_is_billed_was_used,
    l8_each_hour_once,
)
