"""What every billing page has in common: who may see it, what a browser may do with it, and what stands around it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

from flower.views import BaseHandler
from tornado import web

from billing.core.errors import BillingError
from billing.observability.flower.billing_page import rendering
from billing.observability.flower.billing_page.asking import WAIT_SECONDS, Answer, Asking
from billing.task.attachment import attachment_of
from billing.task.runtime import Runtime

T = TypeVar("T")

POSTGRES: Final = "PostgreSQL"
REDIS: Final = "Redis"

#: How often a page that is looked at reads anew.
REFRESH_SECONDS: Final = 5

#: Scripts, styles and answers from Flower alone, in nobody's frame, in no cache, and no client's id in a referrer.
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}

#: The pages of the second row of links: route and words.
TABS: Final = {
    "billing": "Fleet",
    "billing-clients": "Clients",
    "billing-holds": "Holds",
    "billing-parked": "Parked",
    "billing-letters": "Dead letters",
    "billing-increments": "Increments",
}


@functools.cache
def asking() -> Asking:
    """Return what asks for all pages of this process: made when first used, in the loop."""
    return Asking()


class BillingHandler(BaseHandler):  # type: ignore[misc]  # Flower has no types
    """A handler behind Flower's authentication, of which nothing is kept anywhere."""

    def set_default_headers(self) -> None:
        """Add what a browser is to do with it."""
        super().set_default_headers()
        # A Flower whose API is open to scripts of other sites (FLOWER_UNAUTHENTICATED_API) has not opened these pages.
        for what in ("Origin", "Headers", "Methods"):
            self.clear_header(f"Access-Control-Allow-{what}")
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def compute_etag(self) -> None:
        """Nothing is kept, so nothing is compared."""


class Page(BillingHandler):
    """One page. Reading is all it can do."""

    #: Which tab it belongs to.
    tab = ""

    @web.authenticated
    async def get(self) -> None:
        """Show the page, or say in words why there is nothing to show."""
        try:
            runtime = attachment_of(self.capp).runtime
            _ = runtime.settings
        except BillingError as error:
            self.show("unready", "Billing", problem=str(error))
            return
        await self.read(runtime)

    async def read(self, runtime: Runtime) -> None:
        """Read what the page has, and show it."""
        raise NotImplementedError

    async def ask(
        self, server: str, key: Hashable, question: Callable[[], T], *, seconds: float = WAIT_SECONDS
    ) -> Answer[T]:
        """Ask a server, with a bound, and away from the loop. `key` names the question and what it is of."""
        return await asking().ask(server, (type(self).__name__, key), question, seconds=seconds)

    def text(self, name: str, default: str = "") -> str:
        """Return an argument of the address, as it was written."""
        found: str = self.get_argument(name, default, escape=False)
        return found

    def show(self, template: str, title: str, **values: Any) -> None:
        """Render a template into Flower's frame."""
        common = {
            "title": title,
            "tab": self.tab,
            "tabs": {name: (self.reverse_url(name), words) for name, words in TABS.items()},
            "refresh_seconds": REFRESH_SECONDS,
            "url": self._url,
            "task_url": functools.partial(self.reverse_url, "task"),
            "now": datetime.now(UTC),
        }
        self.render(
            rendering.FRAME,
            title=title,
            content=rendering.content(template, common | values),
            script=self.reverse_url("billing-static", "billing.js"),
        )

    def render_string(self, template_name: str, **values: Any) -> bytes:
        """Render the frame, which Flower does not have, and Flower's own templates as ever."""
        if template_name != rendering.FRAME:
            found: bytes = super().render_string(template_name, **values)
            return found
        frame = rendering.FrameLoader(self.get_template_path()).load(template_name)
        style = f'<link rel="stylesheet" href="{self.reverse_url("billing-static", "billing.css")}"></head>'
        page = frame.generate(**self.get_template_namespace(), **values)
        return page.replace(b"</head>", style.encode(), 1)

    def _url(self, name: str, **query: str) -> str:
        path: str = self.reverse_url(name)
        return f"{path}?{urlencode(query)}" if query else path
