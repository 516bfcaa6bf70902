"""The doctor's look at signatures: who signs, which consumers ask for it, and what was refused for want of one.

It sees this process's own settings, and what each consumer notes of itself; of a sender only that events came signed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from billing.connections import postgres
from billing.core.settings import Settings
from billing.fulfillment.dead_letters import count_unverified
from billing.observability.doctor.finding import Finding, fail, ok, warn
from billing.observability.liveness import seen
from billing.observability.liveness.seen import LastSeen
from billing.task.runtime import Runtime

_PART: Final = "broker"
#: A consumer notes itself every ten seconds; one that is not seen for so long is somebody else's finding.
_SEEN_SECONDS: Final = 60.0
#: Consumers that are named (L9).
_NAMED_MAX: Final = 5


def examine_signing(runtime: Runtime) -> Iterator[Finding]:
    """Say who signs and who asks, and warn where that does not fit."""
    settings = runtime.settings
    with postgres.reaching(settings), runtime.engine.connect() as connection:
        consumers = [row for row in seen.read(connection) if row.process == seen.CONSUMER]
        unverified = count_unverified(connection)
    yield ok(_PART, _own(settings))
    yield from _consumers(settings, [row for row in consumers if row.age_seconds < _SEEN_SECONDS])
    if unverified:
        seen_ = f"{unverified} usage events were refused for their signature: they may be forged"
        advice = 'billing dead-letters list --reason "signature:"; a sender without its key, or a stranger'
        yield fail(_PART, seen_, advice)


def _own(settings: Settings) -> str:
    signs = "signs no usage events" if settings.signing_key is None else f"signs as {settings.signing_key.sender}"
    if not settings.verifying_keys:
        return f"this process {signs}"
    return f"this process {signs}; its consumer asks for one of {', '.join(_names(settings))}"


def _consumers(settings: Settings, consumers: Sequence[LastSeen]) -> Iterator[Finding]:
    asking = [row for row in consumers if row.details.get("asks_for_signatures")]
    open_ = [row for row in consumers if not row.details.get("asks_for_signatures")]
    signed = settings.signing_key is not None or any(row.details.get("signed_unasked") for row in open_)
    if open_ and (signed or asking):
        named = ", ".join(row.name for row in open_[:_NAMED_MAX]) + (", …" if len(open_) > _NAMED_MAX else "")
        advice = "once every sender signs: billing_verifying_keys for each fulfillment worker (docs/security.md)"
        yield warn(_PART, f"events come signed, and {named} asks for no signature: anybody's are charged", advice)
    elif asking:
        yield ok(_PART, f"{len(asking)} consumers ask for a signature")


def _names(settings: Settings) -> list[str]:
    return [key.sender for key in settings.verifying_keys]
