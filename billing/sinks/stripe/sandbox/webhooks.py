"""The signature of a webhook, as `stripe.Webhook.construct_event` and `parse_event_notification` verify it. Pure.

Source: Stripe's guide to webhooks. The header is `t=SECONDS,v1=HMAC-SHA256(secret, "SECONDS.PAYLOAD")` in hexadecimals.
"""

from __future__ import annotations

import hashlib
import hmac


def signature(payload: str, secret: str, timestamp: int) -> str:
    """Return the `Stripe-Signature` header of a payload that is sent at this second."""
    mac = hmac.new(secret.encode(), f"{timestamp}.{payload}".encode(), hashlib.sha256)
    return f"t={timestamp},v1={mac.hexdigest()}"
