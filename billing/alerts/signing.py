"""Signs a webhook as Standard Webhooks describes: HMAC-SHA256 over id, timestamp and body, under a secret `whsec_…`.

The receiver verifies with any of that standard's libraries, refuses timestamps far from its clock, and drops an id that
it has seen. Pure: time and secret are given. Source: standardwebhooks.com, "Signature scheme".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import datetime
from typing import Final

PREFIX: Final = "whsec_"


def headers_of(secret: str, message_id: str, sent_at: datetime, body: bytes) -> dict[str, str]:
    """Return the three headers of a message that is sent now."""
    timestamp = str(int(sent_at.timestamp()))
    key = base64.b64decode(secret.removeprefix(PREFIX))
    content = b".".join((message_id.encode(), timestamp.encode(), body))
    signature = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
    return {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": f"v1,{signature}"}
