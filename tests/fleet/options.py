"""The fleet's tasks that have every option, and classes that override what they can.

Started by `tests.fleet.options_worker`, whose app has a billable class for every task, Celery's own included.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import celery

from billing import BillableTask
from tests.fleet.tasks import OTHER_SKU, SKU, note, noted

#: A SKU that the price book does not know.
FIXED_SKU: Final = "report"
#: What the environment says that a report costs: an old worker and a new one differ.
CREDITS: Final = "FLEET_REPORT_CREDITS"
#: The queue that a report which retries goes to.
LATER: Final = "later"


class Sold(BillableTask):
    """What every task of the app is: it has a SKU."""

    abstract = True
    sku = SKU


class Called(BillableTask):
    """Overrides `__call__`, with super()."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run as Celery does."""
        return super().__call__(*args, **kwargs)


class Run(BillableTask):
    """Overrides `__call__`, without super(), and raises in every hook that comes after the end."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body."""
        return self.run(*args, **kwargs)

    def on_retry(self, *_: Any) -> None:
        """Raise."""
        raise RuntimeError("on_retry")

    def on_failure(self, *_: Any) -> None:
        """Raise."""
        raise RuntimeError("on_failure")

    def after_return(self, *_: Any) -> None:
        """Raise."""
        raise RuntimeError("after_return")


def register(app: celery.Celery, environment: Mapping[str, str]) -> None:
    """Register the tasks on an app, in a worker and in the test itself."""
    directory = Path(environment["FLEET_DIRECTORY"])
    _options(app, directory, int(environment.get(CREDITS, "7")))
    _hooks(app)


def _options(app: celery.Celery, directory: Path, credits_: int) -> None:
    @app.task(shared=False, name="report", bind=True, base=BillableTask, sku=FIXED_SKU, credits=credits_)
    def report(self: BillableTask, client_id: str) -> int:
        if not self.request.retries:
            raise self.retry(countdown=0.1, queue=LATER)
        return credits_

    @app.task(shared=False, name="sized", bind=True, base=BillableTask, sku=SKU)
    def sized(self: BillableTask, client_id: str, name: str) -> int:
        note(directory, name)
        if len(noted(directory, name)) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if not self.request.retries:
            raise self.retry(countdown=0.1)
        return int((self.request.headers or {})["billing_quantity"])

    @app.task(shared=False, name="early", base=BillableTask, sku=SKU, refuse_early=True)
    def early(client_id: str, *_: Any) -> str:
        return client_id

    # Plain declarations: on the worker's app they are of its class, which has the SKU.
    @app.task(shared=False, name="one", **_plain(app))
    def one(client_id: str) -> int:
        return 1

    @app.task(shared=False, name="total", **_plain(app))
    def total(parts: list[int], client_id: str) -> int:
        return sum(parts)


def _plain(app: celery.Celery) -> dict[str, Any]:
    return {} if issubclass(app.Task, Sold) else {"base": Sold}


def _hooks(app: celery.Celery) -> None:
    def does_nothing(*_: Any) -> None:
        """Be a hook without super()."""

    @app.task(shared=False, name="called", bind=True, base=Called, sku=OTHER_SKU)
    def called(self: BillableTask, client_id: str) -> str:
        self.usage.record(2)
        return "done"

    @app.task(
        shared=False,
        name="runs",
        bind=True,
        base=Run,
        sku=OTHER_SKU,
        autoretry_for=(ValueError,),
        retry_kwargs={"countdown": 0.1, "max_retries": 1},
    )
    def runs(self: BillableTask, client_id: str, failures: int) -> str:
        if self.request.retries < failures:
            raise ValueError(client_id)
        return "done"

    @app.task(shared=False, name="assigned", base=BillableTask, sku=OTHER_SKU)
    def assigned(client_id: str) -> str:
        return "done"

    task: Any = assigned
    task.before_start = task.on_success = does_nothing
