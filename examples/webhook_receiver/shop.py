"""The app whose clients are told: billing finds its servers by `BILLING_*` variables or the embedded servers' file."""

from __future__ import annotations

import os

import celery

import billing

app = celery.Celery("shop", broker=os.environ["SHOP_BROKER_URL"], backend=os.environ["SHOP_RESULT_URL"])
billing.setup(app)


def sell(client_id: str, pages: int) -> None:
    """Do some work that is charged."""
    with billing.reserve(client_id, "page", pages):
        print(f"{pages} pages for {client_id}")
