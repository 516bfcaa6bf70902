"""`billing replay` from beginning to end: the file, the fleet that it goes to, the work, the ending.

It uses the servers that are configured, by environment or by the connection file of a running `billing up`; else it
runs a stack and a fleet of its own in `.billing/`, which keeps its data, and ends them afterwards.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import celery

from billing import admin
from billing.connections import connection_file
from billing.core.errors import Fatal
from billing.core.settings import Settings
from billing.embedded.fleet import Fleet, FleetPlan
from billing.embedded.lifetime import Stopped, clean_stop
from billing.embedded.stack import Stack
from billing.integration.configuration import read
from billing.schema.migrate import migrate
from billing.workload.progress import Steps
from billing.workload.replay import Outcome, Plan, Replay

DIRECTORY: Final = Path(".billing")
#: The fleet that ships with the checkout.
APP: Final = "worker_tasks.app"
WORKERS: Final = 2
CHILDREN: Final = 4
#: Rows are short: a child that waited for each message would mostly wait.
PREFETCH: Final = 8
_SERVERS: Final = ("BILLING_REDIS_URL", "BILLING_DATABASE_URL", "BILLING_BROKER_URL", "BILLING_RESULT_URL")


def configured(app: str) -> bool:
    """Whether servers are named: by the environment, by a running `billing up`, or by an app of the user's own."""
    return any(name in os.environ for name in _SERVERS) or bool(connection_file.read()) or app != APP


def run(plan: Plan, app: str, steps: Steps, *, find: Callable[[], tuple[Settings, celery.Celery]]) -> Outcome:
    """Replay; `find` gives the settings and the app where servers are configured. Raises `Stopped` on Ctrl-C."""
    with clean_stop(), contextlib.ExitStack() as stack:
        try:
            if configured(app):
                steps.begin("servers", "using the servers that are configured, and the fleet that serves them")
                settings, found = find()
                alive = None
            else:
                settings, found, alive = _own(stack, app, steps)
            stack.callback(admin.close, settings)
            stack.callback(found.close)
            outcome = Replay(settings, found, plan, steps, alive).run()
            steps.begin("stop", "ending what was started")
        except Stopped:
            steps.say("stopped; the same command goes on where it ended, and bills nothing twice")
            raise
    return outcome


def _own(stack: contextlib.ExitStack, app: str, steps: Steps) -> tuple[Settings, celery.Celery, Callable[[], None]]:
    """Start servers and a fleet of our own; they end with `stack`."""
    steps.begin("servers", f"no servers are configured: starting a stack and a fleet of its own in {DIRECTORY}/")
    DIRECTORY.mkdir(mode=0o700, exist_ok=True)
    servers = stack.enter_context(Stack(DIRECTORY))
    os.environ.update(servers.endpoints.environment())
    for line in servers.describe().splitlines():
        steps.say(line)
    settings = read({})
    migrate(settings)
    connection_file.write(servers.endpoints.environment())
    stack.callback(connection_file.remove)
    plan = FleetPlan(
        app=app, workers=WORKERS, children=CHILDREN, prefetch=PREFETCH, beat=False, flower=False, loglevel="WARNING"
    )
    fleet = Fleet(plan, servers.endpoints, DIRECTORY)
    stack.callback(fleet.stop)
    fleet.start()
    steps.say(f"{WORKERS} workers with {CHILDREN} processes each, and a consumer")

    def alive() -> None:
        for server in servers.servers:
            if not server.running:
                raise Fatal(f"{server.name}: ended by itself; see its log in {servers.directory}")
        for child in fleet.dead():
            lines = " / ".join(child.last_lines(2))
            raise Fatal(f"{child.name}: ended by itself with code {child.returncode}: {lines}")

    return settings, load_app(app), alive


def load_app(name: str) -> celery.Celery:
    """Return an app with its tasks, which Celery itself imports in workers only."""
    module, _, attribute = name.partition(":")
    app: celery.Celery = getattr(importlib.import_module(module), attribute or "app")
    app.loader.import_default_modules()
    return app
