"""The message of a delivery that is put off says what the first one said, and nothing that is over."""

from __future__ import annotations

import json
import zlib
from typing import Any

from celery.app.task import Context

from billing.task.again import message_again
from billing.task.waits import Waits

HEADERS = {
    "lang": "py",
    "task": "work",
    "id": "one",
    "root_id": "root",
    "eta": "2026-11-21T12:00:00+00:00",
    "expires": "2026-11-22T12:00:00+00:00",
    "retries": 2,
    "timelimit": [60, 50],
    "stamped_headers": ["batch"],
    "stamps": {"batch": "a"},
    "billing_at": 17,
}


def request(headers: dict[str, Any] | None = None, **properties: Any) -> Context:
    """Return the request of a delivery as a worker's child has it."""
    headers = HEADERS if headers is None else headers
    given = {"content_type": "application/json", "content_encoding": "utf-8", "application_headers": headers}
    return Context(
        {
            **headers,
            "properties": given | properties,
            "delivery_info": {"exchange": "ours", "routing_key": "a.b", "priority": 3, "redelivered": True},
            "callbacks": [{"task": "next"}],
            "errbacks": None,
            "chain": [{"task": "last"}],
            "chord": {"task": "sum"},
        }
    )


def test_headers_body_and_properties_are_those_of_the_first_delivery() -> None:
    """Given a delivery, then only its ETA goes, its time to live, and who sent it; the count of waits comes."""
    kept: dict[str, Any] = {"priority": 3, "reply_to": "answers", "correlation_id": "one", "delivery_mode": 2}

    again = message_again(request(**kept, expiration="86400000", user_id="guest"), ["acme"], {"n": 1}, Waits(count=4))

    assert again is not None
    assert (again.exchange, again.routing_key) == ("ours", "a.b")
    assert again.headers == HEADERS | {"eta": None, "billing_waits": 4}
    assert again.properties == kept
    embedded = {
        "callbacks": [{"task": "next"}],
        "errbacks": None,
        "chain": [{"task": "last"}],
        "chord": {"task": "sum"},
    }
    assert json.loads(again.body) == [["acme"], {"n": 1}, embedded]
    assert (again.content_type, again.content_encoding) == ("application/json", "utf-8")


def test_what_queues_wrote_and_further_addresses_are_left_out() -> None:
    """Given a message that came back to its queue before, then it does not bring that queue's count to another."""
    further = {"x-delivery-count": 7, "CC": ["copy"], "BCC": ["hidden"]}

    again = message_again(request(HEADERS | further), [], {}, Waits())

    assert again is not None
    assert not further.keys() & again.headers.keys()


def test_a_compressed_message_is_compressed_again() -> None:
    again = message_again(request(HEADERS | {"compression": "application/x-gzip"}), ["acme"], {}, Waits())

    assert again is not None
    assert json.loads(zlib.decompress(again.body))[0] == ["acme"]


def test_a_message_that_is_not_known_whole_is_not_made_again() -> None:
    """Given another transport, Celery's protocol 1, or an unknown serializer, then None."""
    assert message_again(Context({"id": "one", "properties": None}), [], {}, Waits()) is None
    assert message_again(request({"billing_at": 17}), [], {}, Waits()) is None
    assert message_again(request(content_type="application/x-ours"), [], {}, Waits()) is None
