"""The headers that make a run id the same on every delivery: `billing_at`, `billing_nonce`, `billing_client`.

A publish from outside any task mints a time and a nonce. A publish from inside a task inherits the time of its root
and takes no nonce, so that a chain child which a redelivered parent publishes again is the same run (L3). A retry
and a `replace()` bring their parent's headers along by themselves.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping
from typing import Any, Final, Protocol

from billing.core import ids
from billing.core.credits import check_amount
from billing.core.errors import InvalidValue
from billing.core.limits import INTEGER_MAX, TEXT_LENGTH_MAX, TIME_MIN
from billing.core.printable import is_unicode

AT: Final = "billing_at"
NONCE: Final = "billing_nonce"
CLIENT: Final = "billing_client"
#: What one call says instead of its task's options `quantity` and `reserve`.
QUANTITY: Final = "billing_quantity"
RESERVE: Final = "billing_reserve"
#: What is wrong with a call that nobody could be told of when it was published: the gate refuses it.
WRONG: Final = "billing_wrong"

#: A task that reschedules itself for ever would carry its root's time for ever: past this age it is minted anew.
INHERITED_AGE_MAX_MILLISECONDS: Final = 30 * 86_400_000


class Request(Protocol):
    """What is read of Celery's `Context`."""

    @property
    def id(self) -> str | None: ...  # noqa: D102 - Celery's field

    @property
    def headers(self) -> Mapping[str, Any] | None: ...  # noqa: D102 - the message's own headers

    @property
    def root_id(self) -> str | None: ...  # noqa: D102 - Celery's field

    @property
    def retries(self) -> int | None: ...  # noqa: D102 - Celery's field

    @property
    def replaced_task_nesting(self) -> int | None: ...  # noqa: D102 - Celery's field


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Which run a delivery belongs to. `submitted_at` is None for senders without the library."""

    run_id: uuid.UUID
    client_id: str
    submitted_at: int | None


def mint(headers: dict[str, Any], parent: Request | None, now_milliseconds: int) -> None:
    """Add the time and nonce to the headers of a message about to be published. What is there already stays."""
    if AT in headers:
        return
    inherited = None if parent is None else read_at(parent.headers)
    if parent is None or (inherited is not None and now_milliseconds - inherited > INHERITED_AGE_MAX_MILLISECONDS):
        headers[AT] = now_milliseconds
        headers[NONCE] = ids.new_nonce()
    elif inherited is not None:
        headers[AT] = inherited


def read_at(headers: Mapping[str, Any] | None) -> int | None:
    """Return the header `billing_at`, or None when there is none; refuse one that is no time."""
    value = (headers or {}).get(AT)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < ids.LEGACY_MILLISECONDS:
        raise InvalidValue(AT, value, "must be milliseconds since the Unix epoch")
    return value


def identify(request: Request, client_id: str, task: str) -> Identity:
    """Return the identity of the run of `task` that a request delivers."""
    headers = request.headers or {}
    at = read_at(headers)
    if at is not None and at < TIME_MIN:
        # The log would take it for no time: seconds, most likely.
        raise InvalidValue(AT, at, "must be milliseconds since the Unix epoch")
    _check_logged(request)
    nonce = headers.get(NONCE, "")
    if not isinstance(nonce, str) or not is_unicode(nonce):
        raise InvalidValue(NONCE, nonce, "must be text")
    if getattr(request, "is_eager", False):
        # An eager `replace()` keeps id and nesting, and only the task tells the two runs apart.
        nonce = f"{nonce}:{task}"
    run_id = ids.run_id(
        client_id,
        request.id or "",
        nesting=request.replaced_task_nesting or 0,
        nonce=nonce,
        at_milliseconds=at,
    )
    return Identity(run_id=run_id, client_id=client_id, submitted_at=at)


def _check_logged(request: Request) -> None:
    """Refuse ids and counts that the log would not take: the work would be done, and its event be no event."""
    check_amount("retries", request.retries or 0, minimum=0)
    check_amount("replaced_task_nesting", request.replaced_task_nesting or 0, minimum=0)
    if (request.retries or 0) >= INTEGER_MAX:
        raise InvalidValue("retries", request.retries, f"must be below {INTEGER_MAX}")
    sent: dict[str, object] = {"task_id": request.id, "root_id": request.root_id}
    for name, text in sent.items():
        if text is not None and (
            not isinstance(text, str) or len(text) > TEXT_LENGTH_MAX or "\x00" in text or not is_unicode(text)
        ):
            shown = text[:80] if isinstance(text, str) else text
            raise InvalidValue(name, shown, f"must be text of at most {TEXT_LENGTH_MAX} characters without NUL")
