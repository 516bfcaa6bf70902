"""Who announces billed deliveries, and that nothing else of the process notices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import celery
import pytest

import billing
from billing import BillableTask
from billing.core.errors import InsufficientCredits, Unreachable
from billing.observability.task_events import announcing
from billing.observability.task_events.sender import EventSender
from billing.task.park import Parked


@pytest.fixture
def app() -> celery.Celery:
    return billing.setup(celery.Celery("announcing", broker="memory://", set_as_current=False))


@pytest.fixture(autouse=True)
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Collect what would be sent."""
    collected: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(EventSender, "send", lambda self, type_, fields: collected.append((type_, fields)))
    announcing._senders.forget()
    yield collected
    announcing.close()
    announcing._senders.forget()


def task_of(app: celery.Celery) -> Any:
    @app.task(shared=False, base=BillableTask, sku="unit")
    def billed(client_id: str) -> None: ...

    app.finalize()
    return app.tasks[billed.name]


def announce(task: Any, outcome: object = None, state: str = "FAILURE", args: tuple[Any, ...] = ("acme",)) -> None:
    announcing.announce(task, args, {}, state, outcome)


REFUSED = InsufficientCredits("acme", "unit", 10, 5)


def test_without_task_events_nothing_is_made(app: celery.Celery, sent: list[Any]) -> None:
    announce(task_of(app), REFUSED)

    assert sent == []
    assert announcing._senders.made is None


def test_a_parked_task_is_announced_as_such(app: celery.Celery, sent: list[Any]) -> None:
    """Given a delivery that ended since its client must pay first, then monitors see who, and that it waits."""
    app.conf.worker_send_task_events = True

    announce(task_of(app), Parked("acme", "unit", 10), "IGNORED")

    ((type_, fields),) = sent
    assert type_ == "task-billed"
    assert (fields["billing_client"], fields["billing_sku"], fields["billing_outcome"]) == ("acme", "unit", "parked")
    assert (fields["billing_charged"], fields["billing_reserved"]) == (0, 0)


def test_a_refusal_names_client_and_sku(app: celery.Celery, sent: list[Any]) -> None:
    app.conf.worker_send_task_events = True

    announce(task_of(app), REFUSED)

    ((type_, fields),) = sent
    assert type_ == "task-billed"
    assert {name: value for name, value in fields.items() if name != "uuid"} == {
        "billing_client": "acme",
        "billing_sku": "unit",
        "billing_charged": 0,
        "billing_reserved": 0,
        "billing_outcome": "refused",
    }


def test_the_option_of_the_worker_is_enough(app: celery.Celery, sent: list[Any]) -> None:
    """`celery worker -E`."""
    announcing.switch_on(app)

    announce(task_of(app), REFUSED)

    assert len(sent) == 1


def test_a_refusal_without_a_usable_client_has_none(app: celery.Celery, sent: list[Any]) -> None:
    app.conf.worker_send_task_events = True

    announce(task_of(app), ValueError("no client"), args=(17,))

    assert [(fields["billing_client"], fields["billing_sku"]) for _, fields in sent] == [(None, None)]


def test_a_delivery_that_is_put_off_is_not_announced(app: celery.Celery, sent: list[Any]) -> None:
    app.conf.worker_send_task_events = True

    announce(task_of(app), Unreachable("later"), state="IGNORED")

    assert sent == []


def test_what_is_not_billed_is_not_announced(app: celery.Celery, sent: list[Any]) -> None:
    app.conf.worker_send_task_events = True

    announce(app.tasks["celery.backend_cleanup"], ValueError())

    assert sent == []


def test_nothing_that_fails_reaches_the_task(
    app: celery.Celery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app.conf.worker_send_task_events = True

    def fail(*_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(EventSender, "send", fail)

    announce(task_of(app), REFUSED)

    assert "is not sent" in caplog.text
