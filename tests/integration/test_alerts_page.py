"""docs/alerts.md: its table is that of the code, its message, its blocks and its commands are as they are printed."""

from __future__ import annotations

import json
import re
import runpy
from datetime import UTC, datetime
from pathlib import Path

import pytest
from standardwebhooks.webhooks import WebhookVerificationError

from billing import admin
from billing import alerts as told
from billing.alerts.alert import FACTS, Alert, body_of, message_id
from billing.alerts.deliveries import Deliveries
from billing.alerts.recording import record
from billing.alerts.signals import signal_of
from billing.alerts.signing import headers_of
from billing.integration.configuration import read
from billing.schema.operations import ALERT_KINDS, TOLD_TO_CLIENTS
from billing.task.runtime import Runtime
from tests.contract.making import a_hold, a_run
from tests.documents import DOCS, blocks, typed
from tests.terminal import Terminal
from tests.webhooks import receiving

pytestmark = pytest.mark.integration

PAGE = DOCS / "alerts.md"
TEXT = PAGE.read_text("utf-8")
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def the_alert() -> Alert:
    """Return the alert of the page's message."""
    return Alert(
        alert_id=17,
        client_id="acme",
        kind="debt",
        threshold_percent=0,
        available=0,
        granted=0,
        occurred_at=datetime(2026, 11, 22, 13, 23, 14, tzinfo=UTC),
        details={"owed": 350, "overdraft_limit": 250},
    )


def test_the_table_has_each_kind_that_a_client_is_told_with_its_fields() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", TEXT, re.MULTILINE))
    assert tuple(rows) == TOLD_TO_CLIENTS
    for kind, data in rows.items():
        named = tuple(re.findall(r"`(\w+)`", data)) if not data.startswith("the same") else FACTS["low_balance"]
        assert named == FACTS[kind], kind
    for kind in set(ALERT_KINDS) - set(TOLD_TO_CLIENTS):
        assert f"`{kind}`" in TEXT


def test_the_message_is_the_one_that_is_sent_and_the_lines_verify_it(tmp_path: Path) -> None:
    (sample,) = re.findall(r"^```json\n(.*)\n```$", TEXT, re.MULTILINE)
    body = body_of(the_alert())
    assert sample.encode() == body
    files = blocks("alerts.md")
    assert list(files) == ["verify.py", "listen.py"]
    (tmp_path / "verify.py").write_text(files["verify.py"])
    verify = runpy.run_path(str(tmp_path / "verify.py"))["read"]
    headers = headers_of(SECRET, message_id(the_alert()), datetime.now(UTC), body)
    assert verify(SECRET, headers, body) == json.loads(body)
    with pytest.raises(WebhookVerificationError):
        verify(SECRET, headers, body + b" ")


def test_the_receiver_of_a_signal_hears_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "listen.py").write_text(blocks("alerts.md")["listen.py"])
    receiver = runpy.run_path(str(tmp_path / "listen.py"))["stop_selling"]
    signal, named = signal_of(the_alert())
    assert signal is told.debt
    try:
        signal.send(sender=None, **named)
    finally:
        signal.disconnect(receiver)
    assert capsys.readouterr().out == "acme owes 350\n"


def test_the_commands_print_what_stands_below_them(shop: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a client whose webhook is gone, then the page's commands find its alert, and send it again."""
    with monkeypatch.context() as patch, receiving(410) as receiver:
        for name, value in shop.environment.items():
            patch.setenv(name, value)
        settings = read({})
        runtime = Runtime(lambda: settings)
        webhook, *rest = typed(PAGE)
        for step in (webhook, None, *rest):
            if step is not None:
                done = shop.type(*step.command.split()[1:])
                assert done.code == 0, done
                assert step.is_printed(done.out), f"$ {step.command}\n{done.out}\nand not:\n{step.output}"
                continue
            admin.set_webhook(settings, "acme", receiver.url)
            runtime.buckets.reserve(a_hold(a_run("acme", "run"), 90))
            record(runtime)
            deliveries = Deliveries(runtime)
            deliveries.step()
            deliveries.finish()
            deliveries.close()
        runtime.close()
        admin.close(settings)


def test_the_page_is_short() -> None:
    assert len(TEXT.splitlines()) <= 90
