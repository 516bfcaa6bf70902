"""docs/receipts.md: each command, typed as it stands there, prints what stands below it."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import psycopg
import pytest

from billing.admin.exports import EXPORTED
from billing.connections import postgres
from billing.core.clock import to_milliseconds
from billing.core.settings import Settings
from billing.fulfillment.postgres_log import PostgresUsageLog
from tests.documents import DOCS, typed
from tests.receipt_picture import PICTURE
from tests.receipts import plan
from tests.terminal import Terminal
from tests.usage_events import delivered, paid_line, usage_event

pytestmark = pytest.mark.integration

PAGE = DOCS / "receipts.md"
#: Task, its root, task's name, SKU, quantity, price, day of October and hour.
USED = (
    ("capture-1", "capture-1", "shop.capture", "page", 3, 5, 1, 9),
    ("capture-2", "capture-2", "shop.capture", "page", 3, 5, 1, 17),
    ("order-7", "order-7", "shop.order", "search", 1, 25, 3, 10),
    ("order-7-a", "order-7", "shop.capture", "page", 4, 5, 3, 10),
    ("order-7-b", "order-7", "shop.capture", "page", 2, 5, 3, 11),
    ("capture-3", "capture-3", "shop.capture", "page", 1, 5, 5, 9),
)


@pytest.fixture
def used(shop: Terminal) -> Terminal:
    """Open a terminal on acme's October: six tasks, three of them a workflow; the first five are reported."""
    assert shop.type("price", "set", "search", "25", "--unit", "search").code == 0
    settings = Settings(database_url=shop.environment["BILLING_DATABASE_URL"])
    log = PostgresUsageLog(lambda: postgres.connect(settings), shards=settings.shards)
    with psycopg.connect(settings.database_url, autocommit=True) as session:
        for number, (task_id, root, task, sku, quantity, price, day, hour) in enumerate(USED):
            at = to_milliseconds(datetime(2026, 10, day, hour, 30, number, tzinfo=UTC))
            line = paid_line(sku, quantity, [(1, quantity * price)])
            made = usage_event("acme", task_id, [line], occurred_at=at, at_milliseconds=at)
            log.write([delivered(msgspec.structs.replace(made, root_id=root, task=task))])
            if number == 4:
                plan(session, "acme", state="confirmed")
    log.close()
    return shop


def test_the_page_s_commands_print_what_it_says(
    used: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    steps = typed(PAGE)
    assert len(steps) == 7
    for step in steps:
        program, *arguments = shlex.split(step.command)
        assert program == "billing"
        answer = used.type(*arguments)
        assert answer.code == 0, answer
        assert step.is_printed(answer.out), f"{step.command}\n{answer.out}"


def test_the_page_names_every_table_of_an_export_and_shows_the_picture() -> None:
    text = PAGE.read_text("utf-8")
    assert [name for name in EXPORTED if f"`{name}`" not in text] == []
    assert "](receipt.png)" in text
    assert PICTURE.read_bytes().startswith(b"\x89PNG")
    assert PICTURE.stat().st_size < 200_000
