"""What a run over the mutants found: a table by room and by law, the survivors, and the same as JSON. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from tests.mutants.mutant import Outcome, Result

#: The share of mutants that must be killed.
KILLED_PERCENT_MIN: Final = 95.0


def killed_percent(outcomes: Sequence[Outcome]) -> float:
    """Return the share that was killed."""
    return 100.0 * sum(outcome.is_killed for outcome in outcomes) / max(1, len(outcomes))


def holds(outcomes: Sequence[Outcome]) -> bool:
    """Whether enough were killed, and every survivor is explained."""
    return killed_percent(outcomes) >= KILLED_PERCENT_MIN and not any(outcome.is_left for outcome in outcomes)


def text(outcomes: Sequence[Outcome]) -> str:
    """Return the report as lines of text."""
    killed = sum(outcome.is_killed for outcome in outcomes)
    share = f"{killed_percent(outcomes):.1f} % (at least {KILLED_PERCENT_MIN:g} %)"
    parts = [
        *_table("room", outcomes, lambda outcome: [outcome.room]),
        "",
        *_table("law", outcomes, lambda outcome: outcome.mutant.laws.split()),
        "",
        f"{killed} of {len(outcomes)} mutants killed: {share}",
    ]
    for outcome in outcomes:
        if not outcome.is_killed:
            why = outcome.by if outcome.result is Result.UNCLEAR else outcome.mutant.explained or outcome.by
            why = why or "NOT EXPLAINED"
            parts.append(f"{outcome.result}: {outcome.room}: {outcome.mutant.name} ({outcome.mutant.file}): {why}")
    return "\n".join(parts)


def as_json(outcomes: Sequence[Outcome], machine: str) -> dict[str, Any]:
    """Return the report as JSON values."""
    return {
        "machine": machine,
        "killed_percent": round(killed_percent(outcomes), 1),
        "mutants": [
            {
                "room": outcome.room,
                "name": outcome.mutant.name,
                "laws": outcome.mutant.laws.split(),
                "file": outcome.mutant.file,
                "result": outcome.result.value,
                "killed": outcome.is_killed,
                "by": outcome.by,
                "seconds": round(outcome.seconds, 1),
                "explained": outcome.mutant.explained,
            }
            for outcome in outcomes
        ],
    }


def _table(what: str, outcomes: Iterable[Outcome], keys: Callable[[Outcome], Iterable[str]]) -> list[str]:
    made, killed = Counter[str](), Counter[str]()
    for outcome in outcomes:
        for key in keys(outcome):
            made[key] += 1
            killed[key] += outcome.is_killed
    order = sorted(made, key=lambda key: (len(key), key)) if what == "law" else list(made)
    width = max(map(len, [what, *made]))
    lines = [f"{what:<{width}}  mutants  killed  survived"]
    lines += [f"{key:<{width}}  {made[key]:>7}  {killed[key]:>6}  {made[key] - killed[key]:>8}" for key in order]
    return lines


def line(outcome: Outcome) -> str:
    """Return one line of progress."""
    mark = "" if outcome.is_killed or outcome.result is Result.BROKEN else " (!)"
    return (
        f"{outcome.result.value:<8}{mark} {outcome.seconds:6.1f} s  {outcome.room}: {outcome.mutant.name}  {outcome.by}"
    )
