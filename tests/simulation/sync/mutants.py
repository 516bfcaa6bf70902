"""Safeguards of the sync, each taken away in turn: what the simulation has to find, and by which law.

A mutant patches one function of the project's. `finds` is the failure that is expected of it: a mutant that is found by
another law is a mutant that is not understood.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Final

from tests.simulation.sync import safeguards
from tests.simulation.sync.chances import DAY, HOUR, MINUTE, Outage, Rates
from tests.simulation.sync.world import Size

COUNTED_TWICE: Final = "counted twice|counted after all"
#: Few clients, who use something every few hours.
BUSY: Final = Size(clients=5, days=6, habits=((1, 3),), deleted_once_in=0)


def _out(kind: str, *, blind: bool = False) -> tuple[Outage, ...]:
    """Return an outage of 40 hours of all that is sent, and of sums, if `blind`."""
    return (Outage(begin=2 * DAY, end=2 * DAY + 40 * HOUR, kind=kind, writes_only=True, blind=blind),)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mutant:
    """A safeguard that is taken away, where it matters, and what finds it."""

    finds: str
    apply: Callable[[safeguards.Patch], None]
    size: Size = BUSY
    rates: Callable[[], Rates] = Rates
    #: After the beginning; None: as chance will have it.
    outages: tuple[Outage, ...] | None = None


def _calm(**more: int) -> Callable[[], Rates]:
    def rates() -> Rates:
        made = Rates()
        made.calm()
        return dataclasses.replace(made, **more)

    return rates


def _busy(**more: object) -> Size:
    return dataclasses.replace(BUSY, **more)  # type: ignore[arg-type]


LAG: Final = _busy(knobs={"summary_lag_seconds": 20 * 3_600})
#: Nobody is reached for a day and more, again and again, from the middle of the first push after a plan on.
LONG: Final = tuple(
    Outage(
        begin=hours * HOUR + minutes * MINUTE,
        end=hours * HOUR + minutes * MINUTE + 26 * HOUR,
        kind="refused_connection",
        writes_only=True,
    )
    for hours, minutes in ((8, 12), (36, 14), (64, 16), (92, 18))
)
MUTANTS: Final[dict[str, Mutant]] = {
    "the first attempt is not on record": Mutant(
        apply=safeguards.no_beginning_on_record, finds=COUNTED_TWICE, outages=_out("commit_then_close", blind=True)
    ),
    "an attempt is not on record before its call": Mutant(
        apply=safeguards.no_attempt_on_record, finds="two calls at once", rates=_calm(twin=1), outages=_out("hang")
    ),
    "an identifier is fresh for each attempt": Mutant(apply=safeguards.fresh_identifier, finds="which no increment is"),
    "an identifier does not cover the payload": Mutant(
        apply=safeguards.identifier_of_the_client, finds="L9: .* Refused"
    ),
    "a generation has the name of the one before": Mutant(
        apply=safeguards.identifier_without_generation, finds="L9: .* Refused", outages=_out("drop")
    ),
    "an idempotency key is used twice": Mutant(apply=safeguards.one_key_for_all, finds="is on record"),
    "a duplicate is an error": Mutant(apply=safeguards.duplicate_is_an_error, finds=COUNTED_TWICE),
    "a refusal in doubt is final": Mutant(
        apply=safeguards.refusal_in_doubt_is_final,
        finds=COUNTED_TWICE,
        outages=(Outage(begin=0, end=6 * DAY, kind="commit_then_close", once_in=2, writes_only=True),),
        rates=_calm(),
        size=_busy(
            clients=20, days=4, deleted_once_in=1, knobs={"deleted_customer": "refuse", "summary_lag_seconds": 72_000}
        ),
    ),
    "silence is nothing": Mutant(
        apply=safeguards.silence_is_nothing, finds=COUNTED_TWICE, outages=_out("commit_then_close"), rates=_calm()
    ),
    "it is sent again blindly": Mutant(
        apply=safeguards.resent_blindly, finds=COUNTED_TWICE, outages=_out("commit_then_close", blind=True)
    ),
    "the dead sent nothing": Mutant(
        apply=safeguards.the_dead_sent_nothing,
        finds=COUNTED_TWICE,
        rates=_calm(killed=12),
        outages=LONG,
    ),
    "what is absent once is absent": Mutant(apply=safeguards.absent_at_first_sight, finds=COUNTED_TWICE, size=LAG),
    "what is absent for hours is absent": Mutant(apply=safeguards.absent_within_hours, finds=COUNTED_TWICE, size=LAG),
    "minutes are shared": Mutant(apply=safeguards.shared_minutes, finds="is of increment", size=_busy(grace_hours=72)),
    "nobody waits his turn": Mutant(
        apply=safeguards.nobody_waits_his_turn,
        finds="two in flight",
        rates=_calm(twin=1),
        outages=_out("refused_connection"),
    ),
    "leases are over at once": Mutant(
        apply=safeguards.leases_are_over_at_once, finds="two calls at once", rates=_calm(twin=1), outages=_out("hang")
    ),
    "leases never end": Mutant(apply=safeguards.leases_never_end, finds="stalled", rates=_calm(killed=30)),
    "periods never close": Mutant(
        apply=safeguards.nothing_closes, finds="lost: of", outages=_out("refused_connection")
    ),
    "what is late stays": Mutant(apply=safeguards.pending_stays, finds="stalled", outages=_out("refused_connection")),
    "reports are not heard": Mutant(
        apply=safeguards.reports_are_not_heard, finds="sent again", rates=_calm(dropped=10)
    ),
    "negatives are sent": Mutant(apply=safeguards.negatives_are_sent, finds="units: -"),
    "what is left of a unit is dropped": Mutant(
        apply=safeguards.remainder_is_dropped, finds="another sum than its units"
    ),
    "what is planned is no transaction": Mutant(
        apply=safeguards.planned_outside_of_the_transaction, finds="that were used", rates=_calm(killed=8)
    ),
    "sums that are refused mean nothing": Mutant(
        apply=safeguards.refused_sums_mean_nothing,
        finds="stalled",
        rates=_calm(),
        size=_busy(deleted_once_in=1, refuses_sums=True, knobs={"summary_lag_seconds": 72_000}),
    ),
    "nobody looks": Mutant(apply=safeguards.nobody_looks, finds="stalled"),
    "any sum confirms": Mutant(apply=safeguards.any_sum_confirms, finds="lost", rates=_calm(dropped=10)),
}
