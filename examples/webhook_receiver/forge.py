"""Posts what a receiver must refuse: `python forge.py URL`. The messages are billing's in all but the signature."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from standardwebhooks.webhooks import Webhook

BODY = json.dumps({"type": "billing.debt", "data": {"client_id": "acme", "owed": 0, "overdraft_limit": 0}})


def post(name: str, secret: str, sent_at: datetime, body: str) -> None:
    """Post a message signed under a secret, and say what came of it."""
    headers = {
        "webhook-id": f"forged-{name}",
        "webhook-timestamp": str(int(sent_at.timestamp())),
        "webhook-signature": Webhook(secret).sign(f"forged-{name}", sent_at, BODY),
    }
    try:
        status = urlopen(Request(sys.argv[1], body.encode(), headers), timeout=10).status  # noqa: S310 - our own URL
    except HTTPError as error:
        status = error.code
    print(f"{name}: {status}")


now = datetime.now(UTC)
post("other-secret", "whsec_" + "AAAA" * 8, now, BODY)
post("altered", os.environ["WEBHOOK_SECRET"], now, BODY.replace('"owed": 0', '"owed": 1'))
post("old", os.environ["WEBHOOK_SECRET"], now - timedelta(minutes=10), BODY)
