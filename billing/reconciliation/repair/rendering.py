"""Shows a repair to people: what would be posted, what was found, and what is left to them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from billing.reconciliation.repair.corrections import Correction, GrantCorrection

COLUMNS = ("client", "grant", "found", "repair", "then")


def correction_rows(corrections: Iterable[Correction]) -> Iterator[tuple[object, ...]]:
    """Yield a row for each posting, and for each rebuild: before, what is done, after."""
    for made in corrections:
        if made.rebuild is not None:
            yield (made.client_id, "", made.rebuild, f"rebuild of shard {made.shard}", "as ledger and log say")
        for one in made.postings:
            yield (made.client_id, one.grant_id or "debt", _found(one), _posting(one), _then(one))


def _found(one: GrantCorrection) -> str:
    found = one.found
    text = f"spent: bucket {found['bucket']:,}, log {found['log'] - found['waiting']:,}"
    return text if "available" not in found else f"{text}; available {found['available']:,}"


def _posting(one: GrantCorrection) -> str:
    parts = [f"credits {one.credits:+,}"] if one.credits else []
    parts += [f"restored {one.restored:+,}"] if one.restored else []
    return "post " + ", ".join(parts)


def _then(one: GrantCorrection) -> str:
    found = one.found
    text = f"spent {found['bucket'] + one.credits:,}"
    if "available" not in found:
        return text
    available = found["available"] + one.restored - one.credits
    return f"{text}; available {available:,}" if available >= 0 else f"{text}; {-available:,} of debt"
