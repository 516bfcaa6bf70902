"""Rules that are broken on purpose, each by one patch of the project's own code: what the simulator has to find.

`make simulate MUTANT=name` runs with one of them switched on. Those of the sync are `sync.safeguards`, by their names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec
import pytest

from billing.credits.twin import settling
from billing.credits.twin.memory import Memory, SettledRun, Shard
from billing.credits.values import Settlement, SettleReply
from billing.events.direct import encode_direct
from billing.events.links import Outgoing
from billing.events.usage_event import EventHead, UsageEvent, UsageLine
from billing.fulfillment import usage_rows, verdicts
from billing.fulfillment.verdicts import Settled, Verdict, judge
from billing.task import lifecycle, publishing, reaper
from billing.task.charging import settlement_of
from billing.task.lifecycle import Lifecycle
from billing.task.publishing import Events
from billing.task.run import Run
from billing.task.runtime import Runtime
from billing.task.usage import Recorder
from tests.simulation.sync import safeguards

Patch = pytest.MonkeyPatch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mutant:
    """A broken rule, and the laws of which one finds it."""

    apply: Callable[[Patch], None]
    finds: str


def never_taken(patch: Patch) -> None:
    """Let a bucket have paid whatever is new."""

    def judged(settled: Settled, epoch: int, stored: Settled | None) -> Verdict:
        return Verdict.NOTHING if stored is None else judge(settled, epoch, stored)

    patch.setattr(verdicts, "judge", judged)


def never_given_back(patch: Patch) -> None:
    """Let a second settlement be."""

    def judged(settled: Settled, epoch: int, stored: Settled | None) -> Verdict:
        return judge(settled, epoch, stored) if stored is None else Verdict.NOTHING

    patch.setattr(verdicts, "judge", judged)


def always_taken(patch: Patch) -> None:
    """Deduct whatever is new."""

    def judged(settled: Settled, epoch: int, stored: Settled | None) -> Verdict:
        return Verdict.TAKE if stored is None else judge(settled, epoch, stored)

    patch.setattr(verdicts, "judge", judged)


def no_result_believed(patch: Patch) -> None:
    """Have the reaper take every stored result for a failure."""
    patch.setattr(reaper, "_succeeded", lambda *_: False)


def any_server_trusted(patch: Patch) -> None:
    """Have a server that came back be taken for the one that went."""
    patch.setattr(Memory, "restart", lambda _: None)


def refused_settle_kept(patch: Patch) -> None:
    """Keep a settle that is refused, and tell nobody."""

    def only_kept(self: Lifecycle, run: Run) -> None:
        self._settle(run)

    patch.setattr(Lifecycle, "_settle_or_charge", only_kept)


def unconfirmed_forgotten(patch: Patch) -> None:
    """Leave an event that was not confirmed to the relay alone."""

    def forgotten(_: Events, message: Outgoing) -> None:
        assert message.body

    patch.setattr(Events, "_keep", forgotten)


def recorded_usage_ignored(patch: Patch) -> None:
    """Charge what was held, whatever the body has recorded."""

    def of_all(runtime: Runtime, run: Run) -> Settlement:
        recorder = Recorder(run.hold.sku)
        return settlement_of(runtime, dataclasses.replace(run, recorder=recorder))

    patch.setattr(lifecycle, "settlement_of", of_all)


def recorded_usage_not_staged(patch: Patch) -> None:
    """Keep what a body has recorded in its process alone."""
    patch.setattr(Lifecycle, "_stage", lambda *_: None)


def stops_without_paying(patch: Patch) -> None:
    """Leave what a process owes to the others when it stops."""
    patch.setattr(Lifecycle, "close", lambda _: None)


def late_never_said(patch: Patch) -> None:
    """Say of no charge without a bucket that it is late."""

    def encode(head: EventHead, lines: Sequence[UsageLine], **known: Any) -> bytes:
        event = msgspec.json.decode(encode_direct(head, lines, **known), type=UsageEvent)
        return msgspec.json.encode(msgspec.structs.replace(event, late=False))

    patch.setattr(publishing, "encode_direct", encode)


def settled_again_takes_again(patch: Patch) -> None:
    """Have a settle that comes again take its credits again."""
    real = settling._already

    def already(shard: Shard, run: SettledRun, settlement: Settlement) -> SettleReply:
        if (book := shard.books.get(settlement.client_id)) is not None:
            book.debt_settled += sum(settlement.amounts)
            book.owed += sum(settlement.amounts)
        return real(shard, run, settlement)

    patch.setattr(settling, "_already", already)


def usage_never_rolled_up(patch: Patch) -> None:
    """Leave out of the rollup what came in a batch with other clients' events."""
    real = usage_rows.rollups

    def rollups(events: Iterable[UsageEvent]) -> usage_rows.Rollups:
        found = list(events)
        return real(found if len({event.client_id for event in found}) < 2 else found[:-1])

    patch.setattr(usage_rows, "rollups", rollups)


_FLEET: Final = {
    never_taken: "L6",
    never_given_back: "L6",
    always_taken: "L6",
    no_result_believed: "L3|L1",
    any_server_trusted: "L",
    refused_settle_kept: "L3",
    unconfirmed_forgotten: "L",
    recorded_usage_ignored: "L3",
    recorded_usage_not_staged: "L3",
    stops_without_paying: "L3",
    late_never_said: "L4",
    settled_again_takes_again: "L4",
    usage_never_rolled_up: "L8",
}
_SYNC: Final = {
    safeguards.fresh_identifier: "L8",
    safeguards.identifier_of_the_client: "L9",
    safeguards.one_key_for_all: "L9",
    safeguards.duplicate_is_an_error: "L8",
    safeguards.remainder_is_dropped: "L8",
    safeguards.nobody_looks: "stalled",
}
#: By the name that `make simulate MUTANT=` takes.
MUTANTS: Final = {
    apply.__name__.replace("_", "-"): Mutant(apply=apply, finds=finds) for apply, finds in {**_FLEET, **_SYNC}.items()
}
