"""Reads Stripe's errors: what each says about the event that was sent. The SDK's objects in, a `Reply` out.

What is not known to be harmless is `UNKNOWN`. Sources: research of the SDK 16.1 and Stripe's documents; the sentence
of the duplicate is observed, not documented, so an identifier that is not ours in it counts for nothing.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import requests

from billing.core.printable import printable
from billing.sinks.sink import Answer, Reply

if TYPE_CHECKING:
    import stripe

#: What v1 says of an identifier that it has; v2 has a code for it.
DUPLICATE_SENTENCE: Final = "An event already exists with identifier"
DUPLICATE_CODE: Final = "duplicate_meter_event"
_REASON_LENGTH_MAX: Final = 300
#: What answers at the address may quote the key that it was sent.
_KEY: Final = re.compile(r"(?:sk|rk)_(?:test|live)_\w*")
_NOT_EXECUTED: Final = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.CONFLICT)
_FORBIDDEN: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_CLIENT_ERRORS: Final = range(400, 500)


def of_error(error: stripe.StripeError, identifier: str | None) -> Reply:
    """Return what an error of the SDK says. `identifier` is that of the event that was sent, if one was."""
    status = error.http_status
    answer = _of_silence(error) if status is None else _of_status(error, status, identifier)
    return Reply(
        answer=answer,
        http_status=status,
        request_id=error.request_id,
        reason=_line(error, answer),
        silent=status is None,
    )


def _of_status(error: stripe.StripeError, status: int, identifier: str | None) -> Answer:
    if status in _NOT_EXECUTED:
        return Answer.BUSY
    if status in _FORBIDDEN:
        return Answer.FORBIDDEN
    if status == HTTPStatus.BAD_REQUEST and identifier is not None and _is_duplicate(error, identifier):
        return Answer.DUPLICATE
    # The key of this very attempt was used with other content: then nothing is known about either.
    idempotency = _detail(error, "type") == "idempotency_error"
    if status not in _CLIENT_ERRORS or status == HTTPStatus.REQUEST_TIMEOUT or idempotency:
        return Answer.UNKNOWN
    return Answer.REFUSED


def _is_duplicate(error: stripe.StripeError, identifier: str) -> bool:
    if error.code == DUPLICATE_CODE:
        return True
    said = error.user_message or ""
    return DUPLICATE_SENTENCE in said and identifier in said


def _of_silence(error: stripe.StripeError) -> Answer:
    """Tell a connection that was never made from one that was lost: only the second may have carried the event."""
    cause = error.__cause__
    if isinstance(cause, requests.exceptions.ConnectTimeout):
        return Answer.UNREACHED
    inner: Any = cause.args[0] if isinstance(cause, requests.exceptions.ConnectionError) and cause.args else None
    never_made = type(getattr(inner, "reason", None)).__name__ in {"NewConnectionError", "NameResolutionError"}
    return Answer.UNREACHED if never_made else Answer.UNKNOWN


def _line(error: stripe.StripeError, answer: Answer) -> str:
    if answer is Answer.UNREACHED:
        return "does not answer"
    if error.http_status is None:
        return f"no answer came ({type(error.__cause__ or error).__name__})"
    if answer is Answer.FORBIDDEN:
        # Stripe's own words quote a part of the key.
        return f"refuses billing_stripe_api_key (HTTP {error.http_status})"
    said = " ".join((error.user_message or _detail(error, "code") or "no reason given").split())
    # What answers may not be Stripe, and its words are told in logs and on pages.
    return printable(f"HTTP {error.http_status}: {_KEY.sub('…', said)}")[:_REASON_LENGTH_MAX]


def _detail(error: stripe.StripeError, name: str) -> str:
    body = error.json_body
    found = body.get("error") if isinstance(body, dict) else None
    return str(found.get(name) or "") if isinstance(found, dict) else ""
