"""What came from a usage queue, from all that its transport says of it. Pure.

Guarantee: whatever body and headers are, nothing is raised (L10). Where signatures are asked for, a message without a
sender's is poison before anything in it is looked at. Headers that nobody of ours writes name no outbox entry.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from billing.core.limits import INTEGER_MAX
from billing.core.printable import shown
from billing.events import signing
from billing.events.links import ENTRY_HEADER, SHARD_HEADER
from billing.fulfillment.batch import Received
from billing.fulfillment.decoder import decode
from billing.fulfillment.delivery import Poison

#: The id of an entry of a Redis stream: one that is none would have Redis refuse the removal of all others beside it.
_ENTRY_ID: Final = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")


def headers_of(message: Any) -> Mapping[str, Any]:
    """Return the headers of a message; none where they are no table."""
    headers = message.headers
    return headers if isinstance(headers, Mapping) else {}


def received(queue: str, message: Any, verifier: signing.Verifier | None) -> Received:
    """Return a message as batches take it."""
    headers, (body, refusal) = headers_of(message), _body_of(message.body)
    shard, entry_id = headers.get(SHARD_HEADER), headers.get(ENTRY_HEADER)
    shard = shard if isinstance(shard, int) and 0 <= shard <= INTEGER_MAX else None
    entry_id = entry_id if isinstance(entry_id, str) and _ENTRY_ID.fullmatch(entry_id) else None
    forgery = None
    if verifier is not None:
        signature = headers.get(signing.SIGNATURE_HEADER)
        forgery = verifier.refusal(signature, body, queue=queue, shard=shard, entry_id=entry_id)
    if forgery is not None:
        # What a forged message says of an outbox is not done.
        poison = Poison(reason=forgery, forged=True)
        return Received(body=body, queue=queue, decoded=poison, tag=message.delivery_tag)
    return Received(
        body=body,
        queue=queue,
        decoded=decode(body) if refusal is None else Poison(reason=refusal),
        tag=message.delivery_tag,
        shard=shard,
        entry_id=entry_id,
    )


def _body_of(body: object) -> tuple[bytes, str | None]:
    """Return the bytes of a body, and why it is refused before they are read."""
    if isinstance(body, bytes):
        return body, None
    if body is None:
        return b"", None
    if isinstance(body, str):  # from a Redis transport's sender that did not encode
        return body.encode("utf-8", "surrogatepass"), None
    if isinstance(body, bytearray | memoryview):
        return bytes(body), None
    # From a Redis transport's sender that wrote JSON of its own.
    return shown(body).encode(), f"body: must be bytes or text, not {type(body).__name__}"
