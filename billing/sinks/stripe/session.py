"""A session with Stripe's API: the only file that imports `stripe`. Foreign errors are mapped here; no key is shown.

Without `billing_stripe_api_key` it talks to the stand-in. A session belongs to one thread and one process (its HTTP
session does): make it where it is used, and close it there. What is sent is one request; what only reads, or makes
something under an idempotency key, is tried again by the SDK.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import requests
import stripe

from billing.core.errors import BillingError, Fatal, InvalidValue, Rejected, Unreachable
from billing.core.settings import Settings, without_password
from billing.sinks.sink import Answer, Reply
from billing.sinks.stripe import answers
from billing.sinks.stripe.keys import KeyKind, key_kind

#: Bounds on connecting and on each wait for bytes, in seconds (L9).
TIMEOUTS_SECONDS: Final = (3.05, 20.0)
#: Further tries of a call that only reads, or that makes something under one idempotency key.
RETRIES: Final = 2
#: The stand-in takes any test key; a fixed one, so that no real key is ever sent to it.
STAND_IN_KEY: Final = "sk_test_billingstandin"
#: How many things one page of a list holds: Stripe's most.
PAGE: Final = 100

_Made = TypeVar("_Made")

# It would write a file into the user's home and send the platform along.
stripe.enable_telemetry = False
_LOGGER: Final = logging.getLogger("stripe")


class Session:
    """A client of the SDK for Stripe, or for the stand-in. Closing it closes its connections.

    `http_client` stands in for the network: it takes the SDK's requests itself. `turn` is called before each call that
    is not a send, and waits for the fleet's rate.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        timeouts_seconds: tuple[float, float] = TIMEOUTS_SECONDS,
        retries: int = RETRIES,
        turn: Callable[[], None] = lambda: None,
        http_client: stripe.HTTPClient | None = None,
    ) -> None:
        self.kind = key_kind(settings)
        if self.kind is KeyKind.LIVE and not settings.stripe_live:
            rule = "is a live key: set billing_stripe_live to true to let increments cost your clients money"
            raise InvalidValue("billing_stripe_api_key", settings.stripe_api_key[:8] + "…", rule)
        stand_in = self.kind is KeyKind.STAND_IN
        self.where = without_password(settings.stripe_sandbox_url) if stand_in else "api.stripe.com"
        self._turn, self._retries = turn, retries
        self._requests = requests.Session()
        # The stand-in is on loopback: no proxy of the environment, and no password of a ~/.netrc.
        self._requests.trust_env = not stand_in
        url = settings.stripe_sandbox_url.rstrip("/")
        everywhere = {"api": url, "meter_events": url, "connect": url, "files": url}
        self.client = stripe.StripeClient(
            settings.stripe_api_key or STAND_IN_KEY,
            base_addresses=everywhere if stand_in else None,  # type: ignore[arg-type]
            max_network_retries=0,
            http_client=http_client or stripe.RequestsClient(timeout=timeouts_seconds, session=self._requests),
        )
        if _LOGGER.level == logging.NOTSET:
            # Three lines for each call are not what a worker's log is for.
            _LOGGER.setLevel(logging.WARNING)

    def send(
        self, call: Callable[[], _Made], *, said: Callable[[_Made], object], wanted: str, duplicate: bool = False
    ) -> Reply:
        """Make one call, which must be one request; return its answer. Never raises.

        Only an answer in which `wanted` is `said` counts as taken. `duplicate`: it is an event's identifier, and the
        refusal of one that is there already names it.
        """
        try:
            made = call()
            response = getattr(made, "last_response", None)
            request_id = response.request_id if response is not None else None
            if said(made) == wanted:
                return Reply(answer=Answer.TAKEN, http_status=200, request_id=request_id)
            reason = "the answer does not name the identifier that was sent"
            return Reply(answer=Answer.UNKNOWN, http_status=200, request_id=request_id, reason=reason)
        except stripe.StripeError as error:
            return answers.of_error(error, wanted if duplicate else None)
        except Exception as error:  # noqa: BLE001 - an answer that the SDK cannot read says nothing about the call
            return Reply(answer=Answer.UNKNOWN, reason=f"the answer cannot be read: {type(error).__name__}")

    @contextmanager
    def reaching(self, *, calls: bool = True) -> Iterator[None]:
        """Wait for a turn; map what goes wrong in a call that has no outcome of its own.

        Without `calls`, an answer is only read, and no turn is due.
        Raises `Unreachable`, `Fatal` when the key is refused, and `Rejected` for what concerns this call alone.
        """
        if calls:
            self._turn()
        try:
            yield
        except stripe.StripeError as error:
            raise self._mapped(answers.of_error(error, identifier=None)) from error
        except BillingError:
            raise
        except Exception as error:
            # Whatever the SDK, or we, look for in an answer and do not find there.
            raise Unreachable(f"Stripe: {self.where!r}: its answer is not Stripe's ({type(error).__name__})") from error

    def reads(self) -> Any:
        """Return the options of a call that only reads."""
        return {"max_network_retries": self._retries}

    def once(self, *content: object) -> Any:
        """Return the options of a call that makes something: calls with the same content make it once, for a day."""
        digest = hashlib.sha256(json.dumps([str(part) for part in content]).encode()).hexdigest()
        return {"max_network_retries": self._retries, "idempotency_key": f"billing-{content[0]}-{digest[:40]}"}

    def close(self) -> None:
        """Close the connections."""
        self._requests.close()

    def _mapped(self, reply: Reply) -> BillingError:
        line = f"Stripe: {self.where!r}: {reply.reason}"
        if reply.answer is Answer.FORBIDDEN:
            return Fatal(line)
        if reply.answer is Answer.REFUSED:
            return Rejected(line)
        unset = self.kind is KeyKind.STAND_IN and reply.answer is Answer.UNREACHED
        return Unreachable(line + (" (billing_stripe_api_key is not set: this is the stand-in's)" if unset else ""))
