"""How the stand-in says no: Stripe's v1 error envelope, one function per sentence.

Guarantee: status, type, code and sentence are Stripe's where they are known (README.md marks them); no key and no
secret is ever part of a sentence.
"""

from __future__ import annotations

from typing import Final

INVALID: Final = "invalid_request_error"
#: Characters of a path that its refusal repeats.
_SHOWN_MAX: Final = 200


class Refusal(Exception):
    """An answer that is not 2xx. `executed` says whether the call's execution began: then its key keeps the answer."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        code: str | None = None,
        param: str | None = None,
        v2_code: str | None = None,
        executed: bool = False,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.code, self.param = status, message, kind, code, param
        self.v2_code = v2_code or code
        self.executed = executed
        self.headers = headers or {}

    def body(self) -> dict[str, object]:
        """Return the v1 envelope. What does not apply is left out, as Stripe does: a duplicate has no `code`."""
        error: dict[str, object] = {"message": self.message, "type": self.kind}
        if self.code is not None:
            error["code"] = self.code
        if self.param is not None:
            error["param"] = self.param
        return {"error": error}


def no_key() -> Refusal:
    """Return the refusal of a call without Authorization header."""
    message = (
        "You did not provide an API key. You need to provide your API key in the Authorization header, "
        "using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY')."
    )
    return Refusal(401, message)


def wrong_key() -> Refusal:
    """Return the refusal of what is no test key. The key itself is never repeated."""
    return Refusal(401, "Invalid API Key provided.")


def live_key() -> Refusal:
    """Return the refusal of a live key: whoever sent it believes that this is Stripe."""
    message = "This is a stand-in, not Stripe: it takes test keys (sk_test_, rk_test_) and refuses live ones."
    return Refusal(401, message)


def unrecognized_url(method: str, path: str) -> Refusal:
    """Return the refusal of a call that there is not."""
    return Refusal(404, f"Unrecognized request URL ({method}: {path[:_SHOWN_MAX]}). The stand-in has no such call.")


def no_such(what: str, name: str, *, param: str = "id", status: int = 404) -> Refusal:
    """Return the refusal of an object that is not there."""
    return Refusal(status, f"No such {what}: '{name}'", code="resource_missing", param=param)


def duplicate_event(identifier: str, *, saved: bool) -> Refusal:
    """Return the refusal of a used identifier. Stripe gives no `code`: the sentence is all that a caller has."""
    message = f"An event already exists with identifier {identifier}."
    never = {"Stripe-Should-Retry": "false"}
    return Refusal(400, message, v2_code="duplicate_meter_event", executed=saved, headers=never)


def no_active_meter(event_name: str, *, archived: bool, saved: bool) -> Refusal:
    """Return the refusal of an event that no active meter takes."""
    message = f'No active meter found for event name "{event_name}"'
    v2_code = "archived_meter" if archived else "no_meter"
    return Refusal(400, message, param="event_name", v2_code=v2_code, executed=saved)


def too_many_concurrent() -> Refusal:
    """Return the refusal of a call while another one for the same customer and meter is executed."""
    message = "Another request for this customer and meter is in progress. Please try again later."
    return Refusal(409, message, code="too_many_concurrent_requests")


def key_in_use(key: str) -> Refusal:
    """Return the refusal of a call while another one with the same idempotency key is executed."""
    message = f"There is currently another in-progress request using this Idempotent Key: {key}."
    return Refusal(409, message, code="idempotency_key_in_use")


def key_of_other_request(key: str) -> Refusal:
    """Return the refusal of a key that was used with other parameters, or for another call."""
    message = (
        "Keys for idempotent requests can only be used with the same parameters they were first used with. "
        f"Try using a key other than '{key}' if you meant to execute a different request."
    )
    return Refusal(400, message, kind="idempotency_error")


def rate_limited() -> Refusal:
    """Return what a caller gets who calls too often. Nothing was executed."""
    return Refusal(429, "Request rate limit exceeded. Please try again later.", code="rate_limit")


def unavailable() -> Refusal:
    """Return what a caller gets while the service is away. Nothing was executed."""
    return Refusal(503, "The service is temporarily unavailable.", kind="api_error")


def internal() -> Refusal:
    """Return the failure during execution: the caller cannot know whether anything was done."""
    return Refusal(500, "An unknown error occurred", kind="api_error", executed=True)
