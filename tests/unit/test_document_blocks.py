"""Every fenced block of the documentation is run by a test, or stands here with the reason why it is not.

A page that gets a block of a new kind fails here until somebody has written its test. Python blocks without a name are
executed here, each in an app of its own.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, Final

import pytest

import billing
from billing.testing import BillingTwin
from tests.documents import DOCS, Fence, fences

ROOT: Final = DOCS.parent
PAGES: Final = {path.relative_to(ROOT).as_posix(): path for path in (ROOT / "README.md", *sorted(DOCS.rglob("*.md")))}
TYPED: Final = "tests/integration/test_typed_pages.py"
HERE: Final = "tests/unit/test_document_blocks.py"

#: Page and language → the test that runs all such blocks of the page.
RUN: Final = {
    ("README.md", "python"): HERE,
    ("docs/adjustments.md", "console"): TYPED,
    ("docs/allowances.md", "console"): TYPED,
    ("docs/allowances.md", "python"): TYPED,
    ("docs/alerts.md", "console"): "tests/integration/test_alerts_page.py",
    ("docs/alerts.md", "json"): "tests/integration/test_alerts_page.py",
    ("docs/alerts.md", "python"): "tests/integration/test_alerts_page.py",
    ("docs/billable-task.md", "python"): "tests/unit/test_billable_task_page.py",
    ("docs/dead-letters.md", "console"): "tests/integration/test_dead_letters_command_line.py",
    ("docs/dry-run.md", "python"): HERE,
    ("docs/explain.md", "console"): "tests/integration/test_explain_page.py",
    ("docs/flower.md", "python"): HERE,
    ("docs/logs.md", ""): "tests/unit/test_logs_page.py",
    ("docs/logs.md", "json"): "tests/unit/test_logs_page.py",
    ("docs/logs.md", "python"): "tests/unit/test_logs_page.py",
    ("docs/operations.md", "console"): "tests/integration/test_operations_page.py",
    ("docs/outside-tasks.md", "console"): TYPED,
    ("docs/outside-tasks.md", "python"): f"{TYPED} {HERE}",
    ("docs/parked-tasks.md", "console"): TYPED,
    ("docs/parked-tasks.md", "python"): HERE,
    ("docs/postgresql.md", "console"): TYPED,
    ("docs/postgresql.md", "sql"): TYPED,
    ("docs/quickstart.md", "console"): TYPED,
    ("docs/quickstart.md", "python"): HERE,
    ("docs/receipts.md", "console"): "tests/integration/test_receipts_page.py",
    ("docs/stripe.md", "console"): "tests/integration/test_stripe_page.py",
    ("docs/testing.md", "python"): "tests/integration/test_wheel.py",
    ("docs/waiting.md", "python"): HERE,
}
#: Page and how a block begins → why no test runs it.
NOT_RUN: Final = {
    ("README.md", " submit ─► reserve ─► run"): "a picture",
    ("README.md", "$ make demo"): "the whole demo: tests/integration/test_demo.py runs it and compares its books",
    ("docs/concepts.md", " submit ─► reserve ─► run"): "a picture",
    ("docs/dry-run.md", "$ billing -A shop.app dry-run"): "a day's counts; tests/integration/test_modes.py has its own",
    ("docs/reconciliation.md", "$ billing reconcile --status"): "a difference: tests/integration/test_reconciler.py",
    ("docs/reconciliation.md", "$ billing sync"): "tests/integration/test_sync_status_commands.py types these blocks",
    ("docs/redis.md", "ACL SETUSER billing on >PASSWORD"): "tests/contract/test_redis_users.py makes this very user",
    ("docs/redis.md", "maxmemory-policy noeviction"): "a server's configuration, at which billing doctor looks",
    ("docs/stripe.md", "billing client link acme cus_…"): "a deleted customer: tests/integration/test_stripe_links.py",
    ("docs/sync-simulation.md", "$ make sync-simulation"): "twelve minutes; tests/simulation/sync runs small ones",
    ("docs/waiting.md", "rabbitmqctl list_queues"): "a broker's own tool, on the broker's machine",
}
#: Blocks of Sphinx, which the build reads.
_OF_THE_BUILD: Final = "{toctree}"
#: What the pages' fragments take for given.
_BEFORE: Final = """
import billing
from billing import BillableTask
from celery import Celery
app = billing.setup(Celery("page", broker="memory://"))
"""
_AFTER: Final = """
app.finalize()
print(*sorted(name for name in app.tasks if not name.startswith(("celery.", "billing."))))
"""


def _fragments() -> list[tuple[str, Fence]]:
    """Return the Python blocks that are run here: those without a file's name, which no test writes down."""
    return [
        (page, fence)
        for page, path in PAGES.items()
        for fence in fences(path)
        if fence.language == "python"
        and HERE in RUN.get((page, "python"), "")
        and not fence.first_line.startswith("# ")
    ]


def test_every_block_is_run_or_has_a_reason_why_not() -> None:
    """Given all pages, then each block has its test, or its reason; nothing is listed that is on no page."""
    unused = {*RUN, *NOT_RUN}
    missing = []
    for page, path in PAGES.items():
        for fence in fences(path):
            reasons = [key for key in NOT_RUN if key[0] == page and fence.text.startswith(key[1])]
            unused -= {*reasons, (page, fence.language)}
            if not reasons and fence.language != _OF_THE_BUILD and (page, fence.language) not in RUN:
                missing.append((page, fence.first_line))
    assert missing == []
    assert unused == set()


def test_each_test_that_is_named_runs_its_page() -> None:
    """Given the list, then each test is a file that names the page, or, here, finds a block of it."""
    for (page, _), tests in RUN.items():
        for test in tests.split():
            text = (ROOT / test).read_text("utf-8")
            assert test == HERE or Path(page).name in text, (page, test)
    assert {page for page, _ in _fragments()} == {page for (page, _), tests in RUN.items() if HERE in tests}


@pytest.mark.parametrize(
    ("page", "fence"),
    [
        pytest.param(page, fence, id=f"{page}:{fence.first_line}")
        for page, fence in _fragments()
        if "async with" not in fence.text  # it is run on the twin, below
    ],
)
def test_a_fragment_runs_in_an_app(page: str, fence: Fence, tmp_path: Path) -> None:
    """Given an app that is billed, when a page's lines are added, then it finalizes with the page's tasks."""
    done = subprocess.run(
        [sys.executable, "-c", f"{_BEFORE}\n{fence.text}\n{_AFTER}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == fence.text.count("@app.task("), (page, done.stdout)


def test_the_fragment_with_a_coroutine_charges_what_it_says() -> None:
    """Given a client, when the page's coroutine has run, then 40 were held and 5 are charged."""
    (fence,) = (fence for _, fence in _fragments() if "async with" in fence.text)
    names: dict[str, Any] = {"billing": billing}
    exec("async def page(client_id):\n" + textwrap.indent(fence.text, "    "), names)  # noqa: S102 - our own page
    twin = BillingTwin()
    with twin.billing():
        twin.price("llm-tokens", 1)
        twin.client("acme", credits=100)
        asyncio.run(names["page"]("acme"))
        assert twin.charged("acme") == 5
