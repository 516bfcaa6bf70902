"""Classes of tasks that override what billing stands in front of, in every way that Python has."""

from __future__ import annotations

import abc
import functools
from typing import Any

import celery

from billing import BillableTask


def does_nothing(*_: Any) -> None:
    """Be a hook without super()."""


class Overriding(BillableTask):
    """Overrides both hooks, without super()."""

    def before_start(self, *_: Any) -> None:
        """Do nothing."""

    def on_success(self, *_: Any) -> None:
        """Do nothing."""


class Calling(BillableTask):
    """Overrides both hooks, with super(), by keyword."""

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Call the hook of the class above."""
        super().before_start(task_id, args=args, kwargs=kwargs)

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Call the hook of the class above."""
        super().on_success(retval=retval, task_id=task_id, args=args, kwargs=kwargs)


class Copying(BillableTask):
    """Overrides both hooks by functions that take on what the hooks of billing are marked with."""

    before_start: Any = functools.wraps(BillableTask.before_start)(lambda *_: None)
    on_success: Any = functools.wraps(BillableTask.on_success)(lambda *_: None)


class Mixin:
    """Comes before `BillableTask` in the order of resolution, and knows nothing of it."""

    def before_start(self, *_: Any) -> None:
        """Do nothing."""

    def on_success(self, *_: Any) -> None:
        """Do nothing."""


class Mixed(Mixin, BillableTask, abc.ABC):
    """Has a metaclass of its own as well."""


class Static(BillableTask):
    """Has hooks of other kinds."""

    before_start: Any = staticmethod(does_nothing)
    on_success: Any = functools.partial(does_nothing, "more")


class Quiet(BillableTask):
    """Does not tell the classes above of its subclasses."""

    def __init_subclass__(cls, **_: Any) -> None:
        """Do nothing."""


class Unbound(Quiet):
    """Binds past billing, too."""

    @classmethod
    def bind(cls, app: celery.Celery) -> Any:
        """Bind as Celery's own task does."""
        return celery.Task.bind.__func__(cls, app)  # type: ignore[attr-defined]


class Raising(BillableTask):
    """Raises in every hook that comes after the end."""

    def on_success(self, *_: Any) -> None:
        """Raise."""
        raise RuntimeError("on_success")

    def on_failure(self, *_: Any) -> None:
        """Raise."""
        raise RuntimeError("on_failure")

    def on_retry(self, *_: Any) -> None:
        """Raise."""
        raise RuntimeError("on_retry")

    def after_return(self, *_: Any) -> None:
        """Raise."""
        raise RuntimeError("after_return")


class CallsRun(BillableTask):
    """Overrides `__call__`, without super()."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body."""
        return self.run(*args, **kwargs)


class CallsSuper(BillableTask):
    """Overrides `__call__`, with super()."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run as Celery does."""
        return super().__call__(*args, **kwargs)
