"""The demo from beginning to end: servers, fleet, clients, work, one dead worker process, books, receipts, stop.

Returns 0 only if every law that it checks holds and every submitted task is accounted for. Every wait is bounded;
however it ends, nothing of it is left running.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import celery
from rich.console import Console
from rich.text import Text

from billing import admin
from billing.connections import postgres
from billing.core.clock import SystemClock
from billing.core.errors import Fatal
from billing.core.settings import Settings
from billing.embedded.demo import facts, report
from billing.embedded.demo.audit import audit
from billing.embedded.demo.casualty import kill_one
from billing.embedded.demo.pages import PageServer
from billing.embedded.demo.workload import BURST_CAPTURES, SHOP, Order, Site, Workload, plan
from billing.embedded.fleet import Fleet, FleetPlan
from billing.embedded.lifetime import clean_stop
from billing.embedded.stack import Stack
from billing.integration.configuration import read
from billing.receipts import Receipt, write_csv, write_html
from billing.schema.migrate import migrate
from billing.workload.ending import Ended, close_books
from billing.workload.feed import reaching
from billing.workload.findings import log_complete
from billing.workload.progress import Steps, TaskProgress
from billing.workload.results import Ending, Results
from billing.workload.standing import summary

APP: Final = "worker_tasks.app"
PRICES: Final = "worker_tasks.price_list"
RECEIPTS: Final = Path(".billing") / "demo"
WORKERS: Final = 2
CHILDREN: Final = 2

POLL_SECONDS: Final = 0.4
WORK_SECONDS: Final = 240.0
#: A hold that nobody finishes is back after its lease and a sweep; the log has had time for every event by then.
BOOKS_SECONDS: Final = 60.0
LEASE_SECONDS: Final = 20
#: The part of the tasks that has ended when a worker process is killed.
KILL_AT: Final = 0.25


def run(
    console: Console | None = None,
    *,
    burst_captures: int = BURST_CAPTURES,
    tell: Callable[[Ended, Sequence[Receipt]], None] | None = None,
) -> int:
    """Run the demo in this process; return its exit code. Raises `Fatal` when a server or a process does not live.

    `tell` is given the end of it, in place of the tables.
    """
    console = console or Console()
    steps = Steps(console)
    with contextlib.ExitStack() as stack:
        stack.enter_context(clean_stop())
        steps.begin("servers", "starting Valkey, PostgreSQL and a broker on loopback")
        servers = stack.enter_context(Stack())
        for line in servers.describe().splitlines():
            steps.say(line)
        stack.enter_context(_environment(_variables(servers)))
        site = stack.enter_context(PageServer(servers.directory / "pydoc")).site
        settings = read({})
        migrate(settings)
        workload = plan(_chosen(site), burst_captures=burst_captures)
        steps.begin("set-up", "clients, their grants, the price list")
        _make_clients(settings, workload)
        for client in workload.clients:
            steps.say(f"{client.client_id:<16} {client.credits:>6,} credits   {client.story}")
        app = _load_app()
        stack.callback(app.close)
        fleet = Fleet(FleetPlan(app=APP, workers=WORKERS, children=CHILDREN), servers.endpoints, servers.directory)
        stack.callback(fleet.stop)
        fleet.start()
        steps.say(f"{WORKERS} workers with {CHILDREN} processes each, a consumer, beat, Flower at {fleet.flower_url}")
        shown = tell or (lambda ended, receipts: console.print(report.render(ended, receipts)))
        ok = _Demo(steps, settings, app, (servers, fleet), workload, shown).run()
        steps.begin("stop", "stopping everything")
    console.print(f"[dim]{steps.summary()}[/]", highlight=False)
    return 0 if ok else 1


class _Demo:
    """The part that runs while servers and fleet do."""

    def __init__(
        self,
        steps: Steps,
        settings: Settings,
        app: celery.Celery,
        running: tuple[Stack, Fleet],
        workload: Workload,
        tell: Callable[[Ended, Sequence[Receipt]], None],
    ) -> None:
        self._tell = tell
        self._steps, self._console = steps, steps.console
        self._settings, self._app, self._workload = settings, app, workload
        self._servers, self._fleet = running
        self._client_ids = [client.client_id for client in workload.clients]
        self._orders: dict[str, Order] = {}
        self._endings: dict[str, Ending] = {}
        self._results: Results[Order] = Results(app)
        self._begun = SystemClock().now()
        self._killed = False

    def run(self) -> bool:
        """Submit, wait, audit, show; return whether everything holds, with a worker process killed on the way."""
        self._steps.begin("work", f"submitting {len(self._workload.orders):,} tasks")
        with (
            postgres.connect(self._settings, autocommit=True) as connection,
            TaskProgress(self._steps, len(self._workload.orders)) as progress,
        ):
            self._submit()
            self._steps.say("all submitted")
            self._work(lambda: self._show(progress, connection))
            self._steps.begin("books", "every task has ended; waiting for the log")
            self._wait_for_books(connection)
        ok = self._audit()
        if not self._killed:
            self._steps.say("no worker process could be caught while it ran a task: none was killed")
        return ok and self._killed

    def _submit(self) -> None:
        with reaching("broker or result backend"), self._app.producer_or_acquire() as producer:
            for order in self._workload.orders:
                sent = self._app.tasks[order.task].apply_async(kwargs=dict(order.arguments), producer=producer)
                self._orders[sent.id] = order
                self._results.expect(sent.id, order)

    def _work(self, show: Callable[[], None]) -> None:
        """Wait until every task has ended, and kill a worker process on the way."""
        total = len(self._workload.orders)
        deadline = time.monotonic() + WORK_SECONDS
        while time.monotonic() < deadline:
            with reaching("result backend"):
                self._endings.update((task_id, ending) for task_id, _, ending in self._results.poll())
            show()
            if not self._results.pending:
                return
            if not self._killed and total - self._results.pending >= KILL_AT * total:
                self._kill()
            self._pause()
        self._steps.say(f"{self._results.pending:,} tasks have not ended within {WORK_SECONDS:g} s")

    def _kill(self) -> None:
        """Kill a process that runs a task; on a busy machine none may be caught, and the next look tries again."""
        casualty = kill_one(self._app, "worker1")
        if casualty is None:
            return
        self._killed = True
        order = self._orders.get(casualty.task_ids[0])
        what = "" if order is None else f", which ran {order.task.rpartition('.')[2]} for {order.client_id}"
        self._steps.say(Text.assemble(("SIGKILL", "bold"), f" to worker process {casualty.pid}{what}"))

    def _wait_for_books(self, connection: Any) -> None:
        """Wait until the log has as many runs as tasks succeeded, and no hold is left; the audit says what is wrong."""
        succeeded = self._succeeded()
        deadline = time.monotonic() + BOOKS_SECONDS
        while time.monotonic() < deadline:
            runs = self._recorded(connection)
            if runs >= succeeded and not facts.unsettled(self._settings, self._client_ids):
                return
            self._pause()
        self._steps.say(f"the books are not complete after {BOOKS_SECONDS:g} s")

    def _audit(self) -> bool:
        settings, client_ids = self._settings, self._client_ids
        runs = facts.runs_of(settings, client_ids)
        held = {client_id: admin.balance(settings, client_id).held for client_id in client_ids}
        found = audit(self._workload.clients, self._orders, self._endings, runs, held)
        books = close_books(settings, client_ids, found.tallies, self._steps)
        laws = (*books.report.findings(), *books.stripe.findings, log_complete(books.report), *found.findings)
        ended = Ended(findings=laws, standings=books.standings)
        receipts = self._receipts()
        self._steps.end()
        self._tell(ended, receipts)
        style = "bold green" if ended.ok else "bold red"
        accounted = f"all {len(self._orders):,} tasks are accounted for"
        self._console.print(summary(ended.findings, accounted), style=style, highlight=False)
        return ended.ok

    def _receipts(self) -> list[Receipt]:
        """Write each client's receipt as CSV, and one of several SKUs as a page to look at."""
        settings, span = self._settings, (self._begun, SystemClock().now() + timedelta(seconds=1))
        tables = [
            write_csv(settings, client_id, RECEIPTS / f"receipt-{client_id}.csv", *span)
            for client_id in self._client_ids
        ]
        page = RECEIPTS / f"receipt-{SHOP.client_id}.html"
        return [*tables, write_html(settings, SHOP.client_id, page, *span)]

    def _show(self, progress: TaskProgress, connection: Any) -> None:
        progress.show(ended=len(self._endings), succeeded=self._succeeded(), logged=self._recorded(connection))

    def _succeeded(self) -> int:
        return sum(ending.succeeded for ending in self._endings.values())

    def _recorded(self, connection: Any) -> int:
        with postgres.reaching(self._settings):
            return facts.recorded(connection, self._client_ids)

    def _pause(self) -> None:
        for server in self._servers.servers:
            if not server.running:
                message = f"{server.name}: ended by itself"
                raise Fatal(message)
        for child in self._fleet.dead():
            lines = " / ".join(child.last_lines(2))
            message = f"{child.name}: ended by itself with code {child.returncode}: {lines}"
            raise Fatal(message)
        time.sleep(POLL_SECONDS)


def _chosen(site: Site | None) -> Site:
    if site is None:  # pragma: no cover - a page server that has started has a site
        raise Fatal("pydoc: its server has no pages")
    return site


def _load_app() -> celery.Celery:
    """Return the fleet's app with its tasks, which Celery itself imports in workers only."""
    app: celery.Celery = importlib.import_module(APP).app
    app.loader.import_default_modules()
    return app


def _make_clients(settings: Settings, workload: Workload) -> None:
    prices: Sequence[Any] = importlib.import_module(PRICES).PRICE_LIST
    for price in prices:
        admin.set_price(settings, price.sku, price.credits_per_unit, price.unit)
    for client in workload.clients:
        admin.add_client(settings, client.client_id)
        admin.grant(settings, client.client_id, client.credits, key="demo")


def _variables(servers: Stack) -> dict[str, str]:
    """Return what points settings, fleet and tasks at this demo, and at the stand-in: it is nobody's Stripe account."""
    return {
        **servers.endpoints.environment(),
        "BILLING_STRIPE_API_KEY": "",
        "BILLING_LEASE_SECONDS": str(LEASE_SECONDS),
        "WORKER_TASKS_STORE": str(servers.directory / "pages"),
        # The pages are on loopback: no proxy of the environment stands between.
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Within, this process and those that it starts have these environment variables."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
