"""Pages that one types: each command of a page, typed as it stands there, prints what stands below it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from billing.embedded.stack import Stack
from tests.documents import DOCS, fences
from tests.integration.test_partitions import bound, month_after
from tests.newcomer import Newcomer
from tests.operator import SEARCH, Site, copy_fleet

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SOLD = ("billing client add acme", "billing price set premium-search 25 --unit search")


@pytest.fixture
def environment(stack: Stack, redis_url: str, result_url: str, broker_url: str, database_url: str) -> dict[str, str]:
    """Return where the servers of this test are."""
    return {
        **stack.endpoints.environment(),
        "BILLING_REDIS_URL": redis_url,
        "BILLING_RESULT_URL": result_url,
        "BILLING_BROKER_URL": broker_url,
        "BILLING_DATABASE_URL": database_url,
    }


@pytest.fixture
def opened(environment: dict[str, str], wheel_environment: Path, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Return what opens a site, types what a page takes for given, and starts the fleet."""
    with ExitStack() as closing:

        def open_(
            *commands: str,
            page: str = "",
            migrated: bool = True,
            instead: Mapping[str, str] | None = None,
            **settings: str,
        ) -> Site:
            made = Site(tmp_path, wheel_environment / "bin", environment, instead=instead, **settings)
            site = closing.enter_context(made)
            if page:
                site.shell.write(DOCS / page)
            for command in ("billing migrate", *commands) if migrated else ():
                site.shell.do(command)
            if commands:
                site.start("consumer", "worker")
            return site

        yield open_


def test_the_quickstart_leads_to_an_invoice_and_a_receipt(
    stack: Stack, wheel_environment: Path, tmp_path: Path
) -> None:
    """Given a fresh directory, when the page is typed, then it is as printed. Only the set-up of `make` is left out."""
    copy_fleet(tmp_path)
    newcomer = Newcomer(
        tmp_path,
        {"PATH": f"{wheel_environment / 'bin'}:{os.environ['PATH']}", "COLUMNS": "120"},
        masked=True,
        instead={"make up": "billing up &", ".venv/bin/": ""},
    )
    try:
        newcomer.follow(DOCS / "quickstart.md")
    finally:
        newcomer.close()


def test_a_charge_is_corrected_as_the_page_says(opened: Callable[..., Site]) -> None:
    linked = (
        "billing stripe setup --price 0.2 --currency eur",
        "billing client link acme --create --subscribe --backdate-hours 2",
    )
    site = opened(*SOLD, "billing grant acme 60 --key welcome", *linked)
    site.work("acme")
    site.wait_for_rows(1)
    site.shell.do("billing sync plan")
    site.shell.follow(DOCS / "adjustments.md")


def test_allowances_and_top_ups_come_as_the_page_says(opened: Callable[..., Site]) -> None:
    opened(*SOLD, page="allowances.md", BILLING_TOP_UP_HOOK="payments:buy").shell.follow(DOCS / "allowances.md")


def test_work_outside_tasks_is_billed_as_the_page_says(opened: Callable[..., Site]) -> None:
    site = opened(*SOLD, "billing price set report 25 --unit report", "billing grant acme 70 --key welcome")
    site.shell.follow(DOCS / "outside-tasks.md")


def test_months_and_roles_are_as_the_page_says(opened: Callable[..., Site], session: psycopg.Connection[Any]) -> None:
    """Given a history of a year, when the page is typed for its first month, then it is as printed, its SQL too."""
    site = opened(instead={"2026-03": (month := f"{month_after(datetime.now(UTC), -12):%Y-%m}")})
    session.execute("DROP TABLE usage_history_early")
    early = "SELECT billing_make_usage_partition('usage_history_early', %s)"
    session.execute(early, [f"FROM (MINVALUE) TO ('{bound(month_after(datetime.now(UTC), -12))}')"])
    site.shell.do("billing partitions make")
    site.shell.follow(DOCS / "postgresql.md")

    site.shell.do(f"billing partitions detach {month}")
    tablespace, logins = (fence.text for fence in fences(DOCS / "postgresql.md") if fence.language == "sql")
    # Of this machine there is the disk that it has; logins are of the whole cluster.
    session.execute(tablespace.replace("2026_03", month.replace("-", "_")).replace("cheap", "pg_default").encode())
    session.execute(logins.encode())
    session.execute("DROP ROLE shop, dashboard")


def test_parked_tasks_are_listed_and_cancelled_as_the_page_says(opened: Callable[..., Site]) -> None:
    site = opened(*SOLD, BILLING_ON_EXHAUSTED="park")
    for _ in range(2):
        site.shell.do(f"python -c \"{SEARCH}; s.delay('acme', 'parse json')\"")
    site.wait_for("SELECT count(*) FROM parked_task", 2)
    site.shell.follow(DOCS / "parked-tasks.md")
