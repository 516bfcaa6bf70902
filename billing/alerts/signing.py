"""Signs a webhook as Standard Webhooks describes, by its own library: HMAC-SHA256 over id, timestamp and body.

The receiver verifies with any of that standard's libraries, refuses timestamps far from its clock, and drops an id that
it has seen. Pure: time and secret are given. Source: standardwebhooks.com, "Signature scheme".
"""

from __future__ import annotations

from datetime import UTC, datetime

from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook


def headers_of(secret: str, message_id: str, sent_at: datetime, body: bytes) -> dict[str, str]:
    """Return the three headers of a message that is sent now. Raises `ValueError` for what is no secret."""
    # The library takes the digits of a time as UTC's, whatever its zone.
    at = sent_at.astimezone(UTC)
    try:
        signature = Webhook(secret).sign(message_id, at, body.decode())
    except EmptyWebhookSecretError as error:
        raise ValueError(str(error)) from error
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": signature,
    }
