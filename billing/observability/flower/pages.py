"""What of Flower is replaced so that it shows billing's fields and nobody's arguments. Only for a supported version.

Seven places: the record of a task, the columns and the room that they have on the page, search, sorting, what workers
answer about running tasks, the endpoint that reads results, and the one that runs a task and waits for its result.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

from flower import urls
from flower.api.tasks import BaseTaskHandler
from flower.events import EventsState
from flower.inspector import Inspector
from flower.utils import search
from flower.views.tasks import TASK_COLUMNS, TasksView
from tornado import web

from billing.observability.flower.tasks import COLUMNS, NOT_SHOWN, NUMBERS, SEARCHED, BilledTask

#: Eleven columns fit on a screen: the short form of an id that Flower shows on a telephone, one line a task.
_STYLE: Final = b"""<style>
.tasks-table { font-size: .75rem; }
.tasks-table.dataTable > :not(caption) > * > * { padding: .45rem .3rem; white-space: nowrap; }
.tasks-table.dataTable > thead > tr > th { padding-right: 1rem !important; letter-spacing: 0; }
.tasks-table.dataTable > thead > tr > th::before { right: .2rem !important; }
.tasks-table.dataTable > thead > tr > th::after { right: .2rem !important; }
.tasks-table .task-uuid-full { display: none; }
.tasks-table .task-uuid-short { display: inline; }
</style></head>"""


def install() -> None:
    """Replace them, before Flower makes its application."""
    EventsState.Task = BilledTask
    TASK_COLUMNS.update({field: heading for field, heading in COLUMNS.items() if heading is not None})
    _make_room()
    _search_billing()
    _sort_numbers()
    _hide_running()
    _hide_awaited()
    urls.handlers.insert(0, (r"/api/task/result/(.+)", HiddenResult))


class HiddenResult(BaseTaskHandler):  # type: ignore[misc]  # Flower has no types
    """Answers for the endpoint that would read a task's result from the backend."""

    @web.authenticated
    def get(self, _task_id: str) -> NoReturn:
        """Refuse."""
        raise web.HTTPError(403, "billing's Flower shows no results of tasks")


def _make_room() -> None:
    original = TasksView.render_string

    def render_string(self: Any, template_name: str, **values: Any) -> bytes:
        page: bytes = original(self, template_name, **values)
        return page.replace(b"</head>", _STYLE, 1)

    TasksView.render_string = render_string


def _search_billing() -> None:
    """Have the search box find a client, a SKU and an outcome."""
    original = search.SearchDocument.from_task

    def from_task(task: Any) -> Any:
        document = original(task)
        words = (str(getattr(task, field, None) or "").casefold() for field in SEARCHED)
        document.all_text = "\x00".join((document.all_text, *words))
        return document

    search.SearchDocument.from_task = from_task


def _sort_numbers() -> None:
    original = search._task_sort_key  # noqa: SLF001

    def sort_key(task: Any, sort_by: str, task_id: str) -> tuple[bool, Any, str]:
        if sort_by in NUMBERS:
            value = getattr(task, sort_by, None)
            return value is not None, value or 0, task_id
        key: tuple[bool, Any, str] = original(task, sort_by, task_id)
        return key

    search._task_sort_key = sort_key  # noqa: SLF001


def _hide_running() -> None:
    """Have what workers say of running and waiting tasks lose the arguments before it is kept."""
    original = Inspector._on_update  # noqa: SLF001

    def on_update(self: Any, workername: str, method: str, response: Any) -> None:
        if method in ("active", "reserved", "scheduled"):
            for entry in response:
                request = entry.get("request", entry)
                request.update({name: NOT_SHOWN for name in ("args", "kwargs") if name in request})
        original(self, workername, method, response)

    Inspector._on_update = on_update  # noqa: SLF001


def _hide_awaited() -> None:
    """Have the endpoint that runs a task (without `read_only`) say how it ended, and not with what."""

    def update_response_result(_self: Any, response: dict[str, Any], _result: Any) -> None:
        response["result"] = NOT_SHOWN

    BaseTaskHandler.update_response_result = update_response_result
