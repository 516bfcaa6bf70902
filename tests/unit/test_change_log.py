"""Lines of the log: one for each change, with its ids; no value forges one; a logger that is off costs one look."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterator
from typing import Any

import celery
import pytest
from celery import signals

import billing
from billing.core.change_log import ALERTS, DEAD_LETTERS, GRANTS, INCREMENTS, REBUILDS, RUNS, log_change
from billing.integration import signals as ours
from billing.observability.logs import JsonFormatter
from billing.task.attachment import attachment_of

RUN = uuid.UUID(int=7)


class Heard(logging.Handler):
    """Keeps records, and how two formatters write them."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.text: list[str] = []
        self.json: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.records.append(record)
        self.text.append(logging.Formatter("%(levelname)s %(message)s").format(record))
        written = JsonFormatter().format(record)
        assert "\n" not in written
        self.json.append(json.loads(written))


@pytest.fixture
def heard() -> Iterator[Heard]:
    """Listen to the runs."""
    handler = Heard()
    RUNS.addHandler(handler)
    RUNS.setLevel(logging.INFO)
    yield handler
    RUNS.removeHandler(handler)
    RUNS.setLevel(logging.NOTSET)


def test_a_change_is_one_line_with_its_ids_as_text_and_as_fields(heard: Heard) -> None:
    log_change(RUNS, "charged", run_id=RUN, client_id="acme", credits=25, debt=None)
    assert heard.text == [f"INFO billing: charged run_id={RUN} client_id=acme credits=25"]
    (line,) = heard.json
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "INFO",
        "logger": "billing.runs",
        "process": "MainProcess",
        "message": "billing: charged",
        "change": "charged",
        "run_id": str(RUN),
        "client_id": "acme",
        "credits": 25,
    }
    assert heard.records[0].funcName == test_a_change_is_one_line_with_its_ids_as_text_and_as_fields.__name__


@pytest.mark.parametrize(
    ("client_id", "shown"),
    [
        ("acme\nINFO billing: charged", r'"acme\\nINFO billing: charged"'),
        ("acme credits=1", '"acme credits=1"'),
        ('ac"me', r'"ac\"me"'),
        ("", '""'),
        ("\x1b[31macme\r", r"\x1b[31macme\r"),
        ("ac\u202eme", r"ac\u202eme"),
        ("%s %(name)s {x}", '"%s %(name)s {x}"'),
        ("bücher", "bücher"),
    ],
)
def test_no_value_breaks_a_line_or_passes_for_another_field(heard: Heard, client_id: str, shown: str) -> None:
    log_change(RUNS, "refused", client_id=client_id, credits=2)
    assert heard.text == [f"INFO billing: refused client_id={shown} credits=2"]
    assert len(heard.text[0].splitlines()) == 1
    assert heard.json[0]["client_id"].isprintable() or not client_id
    assert heard.json[0]["credits"] == 2


def test_l9_a_value_is_cut(heard: Heard) -> None:
    log_change(RUNS, "refused", client_id="x" * 10_000)
    assert len(heard.text[0]) < 400


def test_a_logger_that_is_off_looks_at_nothing(heard: Heard) -> None:
    class Dear:
        def __str__(self) -> str:
            raise AssertionError("shown though nobody listens")

    log_change(RUNS, "reserved", logging.DEBUG, client_id=Dear())
    assert heard.records == []


def test_each_kind_of_change_has_a_logger_of_its_own() -> None:
    loggers = (RUNS, INCREMENTS, ALERTS, DEAD_LETTERS, REBUILDS, GRANTS)
    assert [logger.name for logger in loggers] == [
        "billing.runs",
        "billing.increments",
        "billing.alerts",
        "billing.dead_letters",
        "billing.rebuilds",
        "billing.grants",
    ]


def test_what_a_task_logs_has_the_tasks_id_in_json() -> None:
    app = celery.Celery("logs", broker="memory://", set_as_current=False)

    @app.task(name="says", bind=True)
    def says(self: Any) -> tuple[str, str]:
        record = logging.LogRecord("shop", logging.INFO, __file__, 1, "hello", (), None)
        record.task_id = "???"  # as Celery's own formatter leaves it, where no task is
        record.task_name = "???"
        return self.request.id, JsonFormatter().format(record)

    task_id, written = says.apply().get()
    found = json.loads(written)
    assert (found["task_id"], found["task"], found["message"]) == (task_id, "says", "hello")
    assert "task_name" not in found


@pytest.mark.parametrize(("log_format", "is_json"), [("json", True), ("text", False)])
def test_celerys_own_set_up_writes_json_where_the_setting_says_so(log_format: str, *, is_json: bool) -> None:
    app = celery.Celery("logs", broker="memory://", set_as_current=False)
    app.conf.billing_log_format = log_format
    billing.setup(app)
    logger = logging.getLogger(f"unheard-{log_format}")
    logger.addHandler(handler := logging.StreamHandler())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ours, "all_attachments", lambda: [attachment_of(app)])
        for signal in (signals.after_setup_logger, signals.after_setup_task_logger):
            handler.setFormatter(logging.Formatter())
            signal.send(sender=None, logger=logger)
            assert isinstance(handler.formatter, JsonFormatter) is is_json


def test_a_setting_that_is_wrong_leaves_the_log_alone() -> None:
    app = celery.Celery("logs", broker="memory://", set_as_current=False)
    app.conf.billing_log_format = "xml"
    billing.setup(app)
    logger = logging.getLogger("unheard-wrong")
    logger.addHandler(handler := logging.StreamHandler())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ours, "all_attachments", lambda: [attachment_of(app)])
        ours._format_log(logger)
    assert handler.formatter is None


def test_a_logging_that_is_broken_stops_nothing(heard: Heard) -> None:
    """Given a filter or a handler that raises, then what is told of goes on: a charge waits for no log."""

    def broken(_: logging.LogRecord) -> bool:
        raise OSError("disk full")

    heard.addFilter(broken)
    log_change(RUNS, "charged", credits=25)
    heard.removeFilter(broken)
    log_change(RUNS, "charged", credits=25)
    assert len(heard.text) == 1
