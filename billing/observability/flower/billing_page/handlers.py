"""The billing pages, one handler each, and where they are. Servers are asked at once: none waits for another."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from functools import partial
from importlib import resources
from typing import Final

from tornado import web
from tornado.web import url

from billing.explaining.explain import explain
from billing.explaining.story import Story
from billing.observability.flower.billing_page import client, clients, fleet, holds, lists
from billing.observability.flower.billing_page.asking import Answer
from billing.observability.flower.billing_page.base import POSTGRES, REDIS, BillingHandler, Page
from billing.observability.overview.watch import watch_of
from billing.task.runtime import Runtime

#: What a task's id looks like; a client's may look the same, so that it is only a hint.
_TASK_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: How long the page waits for the first reading after Flower's start; later ones are there.
FIRST_SECONDS: Final = 3.0
#: How long a story is waited for: it asks every server, one after the other.
STORY_SECONDS: Final = 8.0
_STATIC: Final = {"billing.css": "text/css", "billing.js": "text/javascript"}


class FleetPage(Page):
    """How the fleet stands."""

    tab = "billing"

    async def read(self, runtime: Runtime) -> None:
        """Show the last reading of the whole fleet, and the increments in doubt."""
        watch = watch_of(runtime, self.capp)
        state, doubts = await asyncio.gather(
            self.ask("The fleet", "", partial(watch.latest, wait_seconds=FIRST_SECONDS)),
            self.ask(POSTGRES, "", partial(lists.read_increments, runtime, limit=fleet.DOUBTS_MAX)),
        )
        self.show(
            "fleet",
            "Fleet",
            fleet=state,
            doubts=doubts,
            doubts_max=fleet.DOUBTS_MAX,
            **fleet.values(state.value, datetime.now(UTC)),
        )


class ClientsPage(Page):
    """Clients whose ids begin as asked for, each with its bucket."""

    tab = "billing-clients"

    async def read(self, runtime: Runtime) -> None:
        """Show a page of them."""
        beginning = self.text("q")
        order = self.text("order", "newest")
        order = order if order in clients.ORDERS else "newest"
        found = await self.ask(POSTGRES, (beginning, order), partial(clients.find, runtime, beginning, order))
        ids = tuple(each.client_id for each in found.value.clients) if found.value else ()
        buckets = await self.ask(REDIS, ids, partial(clients.buckets_of, runtime, ids))
        self.show(
            "clients",
            "Clients",
            found=found,
            buckets=buckets,
            lines=clients.lines(found.value, buckets.value, order) if found.value else (),
            beginning=beginning,
            order=order,
            orders=clients.ORDERS,
            is_task_id=bool(_TASK_ID.fullmatch(beginning)),
            compared_max=clients.COMPARED_MAX,
        )


class ClientPage(Page):
    """One client."""

    tab = "billing-clients"

    async def read(self, runtime: Runtime) -> None:
        """Show what PostgreSQL has of it, and what Redis has."""
        client_id, span = self.text("id"), self.text("span", "24h")
        span = span if span in client.SPANS else "24h"
        books, bucket = await asyncio.gather(
            self.ask(POSTGRES, (client_id, span), partial(client.read_books, runtime, client_id, span)),
            self.ask(REDIS, client_id, partial(client.read_bucket, runtime, client_id)),
        )
        self.show(
            "client",
            client_id or "Client",
            client_id=client_id,
            books=books,
            bucket=bucket,
            span=span,
            spans=client.SPANS,
        )


class HoldsPage(Page):
    """The oldest holds of the fleet."""

    tab = "billing-holds"

    async def read(self, runtime: Runtime) -> None:
        """Show them."""
        self.show("holds", "Holds", found=await self.ask(REDIS, "", partial(holds.read_holds, runtime)))


class ParkedPage(Page):
    """The tasks that have waited longest for credits."""

    tab = "billing-parked"

    async def read(self, runtime: Runtime) -> None:
        """Show them."""
        found = await self.ask(POSTGRES, "", partial(lists.read_parked, runtime))
        self.show("parked", "Parked tasks", found=found, shown_max=lists.SHOWN_MAX)


class LettersPage(Page):
    """What the usage log refused."""

    tab = "billing-letters"

    async def read(self, runtime: Runtime) -> None:
        """Show why, and when, and never what was in it."""
        found = await self.ask(POSTGRES, "", partial(lists.read_letters, runtime))
        self.show("letters", "Dead letters", found=found, shown_max=lists.SHOWN_MAX)


class IncrementsPage(Page):
    """Increments that wait for a person."""

    tab = "billing-increments"

    async def read(self, runtime: Runtime) -> None:
        """Show them."""
        found = await self.ask(POSTGRES, "", partial(lists.read_increments, runtime))
        self.show("increments", "Increments in doubt", found=found, shown_max=lists.SHOWN_MAX)


class TaskPage(Page):
    """What billing did for one task, also for one that Flower does not know."""

    async def read(self, runtime: Runtime) -> None:
        """Show the story."""
        task_id, client_id = self.text("id"), self.text("client") or None
        story: Answer[Story] = Answer()
        if task_id:
            # Who knows the client spares Redis a look through all shards. Flower shows no argument, in no error's text.
            told = partial(explain, runtime, task_id, client_id=client_id, app=self.capp, quotes=False)
            story = await self.ask("The story's sources", (task_id, client_id), told, seconds=STORY_SECONDS)
        self.show("task", "Task", task_id=task_id, story=story)


class Static(BillingHandler):
    """The pages' own script and style."""

    @web.authenticated
    def get(self, name: str) -> None:
        """Answer with one of the two."""
        if name not in _STATIC:
            raise web.HTTPError(404)
        self.set_header("Content-Type", f"{_STATIC[name]}; charset=utf-8")
        self.finish((resources.files(__package__) / "static" / name).read_bytes())


#: Where they are. Ids stand in the query, since a client's may be `..`, or have a `/`.
HANDLERS: Final = (
    url(r"/billing", FleetPage, name="billing"),
    url(r"/billing/", FleetPage),
    url(r"/billing/clients", ClientsPage, name="billing-clients"),
    url(r"/billing/client", ClientPage, name="billing-client"),
    url(r"/billing/holds", HoldsPage, name="billing-holds"),
    url(r"/billing/parked", ParkedPage, name="billing-parked"),
    url(r"/billing/dead-letters", LettersPage, name="billing-letters"),
    url(r"/billing/increments", IncrementsPage, name="billing-increments"),
    url(r"/billing/task", TaskPage, name="billing-task"),
    url(r"/billing/static/([a-z.]+)", Static, name="billing-static"),
)
