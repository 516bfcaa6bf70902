"""The drain is no way around signatures: a task worker, which has no keys to verify with, does not run it."""

from __future__ import annotations

import base64

import celery
import pytest

import billing
from billing.core.errors import Fatal
from billing.integration import services
from billing.task.attachment import attachment_of

SECRET = base64.b64encode(b"s" * 32).decode()


class Reached(Exception):
    """The drain has begun."""


def reached(_: object) -> None:
    raise Reached


@pytest.mark.parametrize(
    ("conf", "fulfills", "runs"),
    [
        ({}, False, True),
        ({"billing_signing_key": f"workers:{SECRET}"}, False, False),
        ({"billing_signing_key": f"workers:{SECRET}"}, True, True),
        ({"billing_signing_key": f"a:{SECRET}", "billing_verifying_keys": [f"a:{SECRET}"]}, False, True),
    ],
    ids=["nobody signs", "a task worker", "a fulfillment worker", "who verifies"],
)
def test_who_signs_and_does_not_verify_drains_nothing_but_in_a_fulfillment_worker(
    monkeypatch: pytest.MonkeyPatch,
    conf: dict[str, object],
    fulfills: bool,  # noqa: FBT001
    runs: bool,  # noqa: FBT001
) -> None:
    """Whoever may send a task could have forged events written by a process that asks for no signature (L3)."""
    monkeypatch.setattr(services, "make_usage_log", reached)
    app = celery.Celery("signing", set_as_current=False)
    app.conf.update(conf)
    billing.setup(app)
    attachment_of(app).fulfills = fulfills
    with pytest.raises(Reached if runs else Fatal, match=None if runs else "billing_verifying_keys: none"):
        app.tasks["billing.fulfillment.drain"]()
