"""The table of outcomes, row by row: what an answer means for the event, and what becomes of its increment (L8)."""

from __future__ import annotations

from typing import Any

import pytest
import requests
import stripe
from urllib3.exceptions import MaxRetryError, NewConnectionError, ProtocolError

from billing.sinks.sink import Answer
from billing.sinks.stripe.answers import of_error
from billing.sinks.sync.increment import State
from billing.sinks.sync.protocol import state_after

IDENTIFIER = "b1-abc"
SAYS_DUPLICATE = f"An event already exists with identifier {IDENTIFIER}."


@pytest.mark.parametrize(
    ("answer", "without_doubt", "in_doubt"),
    [
        (Answer.TAKEN, State.SENT, State.SENT),
        (Answer.DUPLICATE, State.SENT, State.SENT),
        (Answer.BUSY, State.PENDING, State.AMBIGUOUS),
        (Answer.UNREACHED, State.PENDING, State.AMBIGUOUS),
        (Answer.FORBIDDEN, State.PENDING, State.AMBIGUOUS),
        (Answer.REFUSED, State.REJECTED, State.AMBIGUOUS),
        (Answer.UNKNOWN, State.AMBIGUOUS, State.AMBIGUOUS),
    ],
)
def test_what_becomes_of_an_increment(answer: Answer, without_doubt: State, in_doubt: State) -> None:
    """Given an earlier attempt of which nothing is known, then only proof ends the doubt."""
    assert state_after(answer, doubted=False) is without_doubt
    assert state_after(answer, doubted=True) is in_doubt


def test_every_answer_has_its_row() -> None:
    for answer in Answer:
        assert state_after(answer, doubted=False) in State


def refusal(status: int, message: str = "", **details: Any) -> stripe.StripeError:
    """Return the SDK's error for an answer of Stripe's."""
    body = {"error": {"message": message, **details}}
    kind = stripe.IdempotencyError if details.get("type") == "idempotency_error" else stripe.APIError
    made: Any = kind
    return made(message, None, status, body, {"request-id": "req_1"}, details.get("code"))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (refusal(400, SAYS_DUPLICATE), Answer.DUPLICATE),
        (refusal(400, "", code="duplicate_meter_event"), Answer.DUPLICATE),
        (refusal(400, "An event already exists with identifier b1-other."), Answer.REFUSED),
        (refusal(500, SAYS_DUPLICATE), Answer.UNKNOWN),
        (refusal(400, "No such customer"), Answer.REFUSED),
        (refusal(404, "Unrecognized request URL"), Answer.REFUSED),
        (refusal(400, "Keys for idempotent requests …", type="idempotency_error"), Answer.UNKNOWN),
        (refusal(408), Answer.UNKNOWN),
        (refusal(409, code="too_many_concurrent_requests"), Answer.BUSY),
        (refusal(429), Answer.BUSY),
        (refusal(401, "Invalid API Key provided: sk_test_*********1234"), Answer.FORBIDDEN),
        (refusal(403), Answer.FORBIDDEN),
        (refusal(500), Answer.UNKNOWN),
        (refusal(503), Answer.UNKNOWN),
        (refusal(302), Answer.UNKNOWN),
    ],
)
def test_what_an_answer_says(error: stripe.StripeError, answer: Answer) -> None:
    reply = of_error(error, IDENTIFIER)

    assert reply.answer is answer
    assert (reply.http_status, reply.request_id, reply.silent) == (error.http_status, "req_1", False)
    assert "\n" not in reply.reason
    assert "1234" not in reply.reason


def _silence(cause: Exception) -> stripe.StripeError:
    error: Any = stripe.APIConnectionError("Unexpected error communicating with Stripe.")  # type: ignore[no-untyped-call]
    error.__cause__ = cause
    return error  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("cause", "answer"),
    [
        (requests.ConnectTimeout("connect"), Answer.UNREACHED),
        (
            requests.ConnectionError(MaxRetryError(None, "/", NewConnectionError(None, "refused"))),  # type: ignore[arg-type]
            Answer.UNREACHED,
        ),
        (requests.ReadTimeout("read"), Answer.UNKNOWN),
        (requests.ConnectionError(ProtocolError("Connection aborted.", ConnectionResetError())), Answer.UNKNOWN),
        (requests.exceptions.ChunkedEncodingError("half an answer"), Answer.UNKNOWN),
        (RuntimeError("anything"), Answer.UNKNOWN),
    ],
)
def test_silence_is_doubt_unless_no_connection_was_made(cause: Exception, answer: Answer) -> None:
    """Given no answer, then only a connection that was never made carried nothing."""
    reply = of_error(_silence(cause), IDENTIFIER)

    assert reply.answer is answer
    assert reply.silent
    assert reply.http_status is None
