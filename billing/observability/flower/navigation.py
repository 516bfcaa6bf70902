"""What Flower's own pages get of billing: a link in the navigation bar, and on a task's page the whole story of it.

The story is fetched by the browser from a page of its own: Flower's page of a task asks no server, and is as fast as
ever.
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import urlencode

from flower import urls
from flower.views import BaseHandler
from flower.views.tasks import TaskView
from tornado.escape import xhtml_escape
from tornado.web import RequestHandler

from billing.observability.flower.billing_page.base import REFRESH_SECONDS
from billing.observability.flower.billing_page.handlers import HANDLERS

#: The link that stands last in the first part of Flower's navigation bar.
_LAST_LINK: Final = re.compile(rb">Broker</a>\s*</li>")
_LINK: Final = """
        <li class="nav-item">
          <a class="nav-link{active}" href="{address}"{current}>Billing</a>
        </li>"""
_STORY: Final = """<section class="page-section detail-page billing-page billing-task" aria-label="Billing">
<p class="refresh-status" id="billing-status" role="status"><span class="status-dot" aria-hidden="true"></span>
<span>The story is being read…</span></p>
<div id="billing-live" data-refresh-seconds="{seconds}" data-source="{address}"></div>
</section>
</main>"""


def add_billing_pages() -> None:
    """Give Flower the billing pages, the link to them, and a task's story on its page, before Flower is made."""
    urls.handlers[:0] = HANDLERS
    _link()
    _tell_story()


def _link() -> None:
    original = RequestHandler.render_string

    def render_string(self: Any, template_name: str, **values: Any) -> bytes:
        page: bytes = original(self, template_name, **values)
        if template_name != "navbar.html":
            return page
        here = values.get("active_tab") == "billing"
        link = _LINK.format(
            active=" active" if here else "",
            address=self.reverse_url("billing"),
            current=' aria-current="page"' if here else "",
        )
        return _LAST_LINK.sub(lambda found: found[0] + link.encode(), page, count=1)

    BaseHandler.render_string = render_string


def _tell_story() -> None:
    original = TaskView.render_string

    def render_string(self: Any, template_name: str, **values: Any) -> bytes:
        page: bytes = original(self, template_name, **values)
        if template_name != "task.html":
            return page
        task = values["task"]
        query = {"id": task.uuid} | ({"client": task.billing_client} if task.billing_client else {})
        address = f"{self.reverse_url('billing-task')}?{urlencode(query)}"
        story = _STORY.format(seconds=REFRESH_SECONDS, address=xhtml_escape(address))
        style = f'<link rel="stylesheet" href="{self.reverse_url("billing-static", "billing.css")}"></head>'
        script = f'<script src="{self.reverse_url("billing-static", "billing.js")}"></script></body>'
        for place, more in ((b"</main>", story), (b"</head>", style), (b"</body>", script)):
            page = page.replace(place, more.encode(), 1)
        return page

    TaskView.render_string = render_string
