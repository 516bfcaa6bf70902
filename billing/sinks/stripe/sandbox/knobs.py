"""What Stripe does not document, or documents twice: one knob each, so that no test can rest on an assumption.

Guarantee: a frozen value; an unknown name or a value out of range is refused with one line. README.md names the
evidence for each default.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

from billing.core.errors import InvalidValue

DAY: Final = 86_400

Lost = Literal["drop", "refuse"]
Taken = Literal["accept", "refuse"]
Scope = Literal["account", "meter"]
Empty = Literal["zero", "absent"]
Identifier = Literal["used", "free"]
Names = Literal["shared", "own"]
LastInvoice = Literal["grace", "at_once"]
Mode = Literal["classic", "flexible"]


def _number(default: int, most: int) -> Any:
    return dataclasses.field(default=default, metadata={"most": most})


def _choice(default: str, kind: Any) -> Any:
    return dataclasses.field(default=default, metadata={"choices": get_args(kind)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Knobs:
    """The settings of one stand-in. Each can be changed while it runs: `POST /sandbox/knobs`."""

    identifier_window_seconds: int = _number(DAY, 400 * DAY)  #: how long an identifier is refused a second time
    identifier_scope: Scope = _choice("account", Scope)  #: within what an identifier is unique
    duplicate_first: bool = False  #: look for the identifier before the rest of the event is checked
    unknown_customer: Lost = _choice("drop", Lost)  #: drop: answer 200 and never count it, as Stripe's async error
    deleted_customer: Lost = _choice("drop", Lost)  #: the same, for a customer that was deleted
    no_meter: Lost = _choice("refuse", Lost)  #: the same, for an event name that no active meter has
    decimals: bool = False  #: allow values that are not whole
    event_name_taken: Taken = _choice("refuse", Taken)  #: a second active meter for the same event name
    key_window_seconds: int = _number(DAY, 400 * DAY)  #: how long an idempotency key replays its answer
    v2_key_window_seconds: int = _number(30 * DAY, 400 * DAY)  #: the same, of v2, which keeps successes alone
    save_refusals: bool = True  #: a 400 found while executing (duplicate, no meter) is saved under its key
    one_call_per_customer_and_meter: bool = True  #: overlapping calls are refused with 409
    calls_per_second: int = _number(0, 1_000_000)  #: more of them are answered 429; 0: no limit
    summary_lag_seconds: int = _number(0, 400 * DAY)  #: how long after its receipt an event shows in summaries
    summary_lag_spread_seconds: int = _number(0, 400 * DAY)  #: how much more at most, each event a time of its own
    end_time_inclusive: bool = False  #: whether an event at exactly `end_time` is in the summary
    empty_summaries: Empty = _choice("zero", Empty)  #: whether a window without events has a summary
    summaries_newest_first: bool = True  #: the order of grouped summaries
    v2_identifiers: Names = _choice("shared", Names)  #: whether v1 refuses an identifier of v2, and v2 one of v1
    wrong_adjustment: Taken = _choice("refuse", Taken)  #: of an event that is not there, too old, or canceled
    canceled_identifier: Identifier = _choice("used", Identifier)  #: of an event whose cancellation is complete
    adjustment_seconds: int = _number(60, DAY)  #: until the cancellation of an event is complete
    error_report_delay_seconds: int = _number(0, DAY)  #: from a window's end until what was dropped in it is reported
    error_samples_max: int = _number(5, 1_000)  #: errors of each kind that a report names
    listed_event_data: bool = False  #: listed events have their data; without it each is to be retrieved
    invoice_grace_seconds: int = _number(3_600, 3 * DAY)  #: from a period's end until its invoice is final
    invoice_lag_seconds: int = _number(0, 400 * DAY)  #: how long after its receipt an event counts on an invoice
    last_invoice: LastInvoice = _choice("grace", LastInvoice)  #: when that of a canceled subscription is final
    first_invoice: bool = True  #: a new subscription has an invoice at once, of 0 when nothing is paid ahead
    billing_mode: Mode = _choice("flexible", Mode)  #: of a subscription that does not say it

    def changed(self, changes: Mapping[str, object]) -> Knobs:
        """Return these knobs with some of them turned; `InvalidValue` for a name or value that is not one."""
        known = {field.name: field for field in dataclasses.fields(self)}
        for name, value in changes.items():
            if name not in known:
                raise InvalidValue("knobs", name, f"must be one of: {', '.join(known)}")
            _check(known[name], value)
        return dataclasses.replace(self, **dict(changes))  # type: ignore[arg-type]


def _check(field: dataclasses.Field[Any], value: object) -> None:
    choices, most = field.metadata.get("choices"), field.metadata.get("most")
    if choices is not None:
        if value not in choices:
            raise InvalidValue(field.name, value, f"must be one of: {', '.join(choices)}")
    elif most is not None:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise InvalidValue(field.name, value, f"must be a whole number from 0 to {most}")
    elif not isinstance(value, bool):
        raise InvalidValue(field.name, value, "must be true or false")
