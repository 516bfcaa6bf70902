"""`BillableTask`: subclass it, name a SKU, and every success is charged exactly once.

Where it hooks, and why (measured on Celery 5.6 and 5.7): it reserves in `before_start`, the only gate whose
exceptions count; settles in `on_success`, the first point at which success is recorded; and ends in the signal
`task_postrun`, the only one that fires for every ending. Hooks are wrapped when a class is made, so that a subclass,
a mixin or a decorator option which overrides them does not switch billing off.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

import celery

from billing.core.errors import Rejected
from billing.core.settings import OnExhausted, OnRedisDown
from billing.task import usage as usage_module
from billing.task.attachment import attachment_of, is_attached
from billing.task.definition import Definition, Quantity, Reserve, Sku, define
from billing.task.gate import begin
from billing.task.lifecycle import Lifecycle
from billing.task.modes import is_dry
from billing.task.quoting import Quote, quote_run
from billing.task.run import run_of

logger = logging.getLogger(__name__)

_WRAPPED: Final = "_billing_wraps"
_OPTIONS: Final = ("sku", "quantity", "reserve", "client", "on_exhausted", "on_redis_down", "dry_run")


class BillableTask(celery.Task):  # type: ignore[type-arg]  # Celery's class takes none at run time
    """A task whose success is charged to a client.

    Options, on the class or in the decorator:

    * `sku`: what is sold: its name, or a callable that takes the task's arguments without `self`. A task without one
      is not billed (a shared base class, Celery's built-in tasks).
    * `quantity`: how much of it, in the SKU's unit: a whole number (default 1) or a callable that takes the task's
      arguments without `self`.
    * `reserve`: the most the run may use, when that is more than `quantity`: a whole number, a mapping of SKU to
      quantity for runs that use several, or a callable that returns either.
    * `client`: the name of the argument that says who pays (default `client_id`).
    * `on_exhausted`: what a delivery does whose client cannot pay now, where not as `billing_on_exhausted` says.
    * `on_redis_down`: what it does while Redis is away, where not as `billing_on_redis_down` says.
    * `dry_run`: whether nothing is charged and nothing refused, where not as `billing_dry_run` says.

    A client that cannot pay gets `InsufficientCredits`, and the body does not run. `self.usage.record(...)` says what
    was used; without it `quantity` is charged.
    """

    abstract = True
    #: A charge follows the work: a worker that dies must have its message redelivered, or the work is lost (L3).
    acks_late = True
    reject_on_worker_lost = True
    #: A refusal is an answer, not an accident: Celery logs it without a traceback.
    throws = (Rejected,)

    sku: ClassVar[Sku | None] = None
    quantity: ClassVar[Quantity | None] = None
    reserve: ClassVar[Reserve | None] = None
    client: ClassVar[str] = "client_id"
    on_exhausted: ClassVar[OnExhausted | None] = None
    on_redis_down: ClassVar[OnRedisDown | None] = None
    dry_run: ClassVar[bool | None] = None

    def __init_subclass__(cls, **options: Any) -> None:
        """Wrap the hooks as this class resolves them, and keep callables from becoming methods."""
        super().__init_subclass__(**options)
        cls._keep_billing()

    @classmethod
    def _keep_billing(cls) -> None:
        for name in ("sku", "quantity", "reserve"):
            if inspect.isfunction(cls.__dict__.get(name)):
                setattr(cls, name, staticmethod(cls.__dict__[name]))
        for hook, wrap in (("before_start", _reserving), ("on_success", _settling)):
            resolved = getattr(cls, hook)
            if not hasattr(resolved, _WRAPPED):
                setattr(cls, hook, wrap(resolved))

    @classmethod
    def bind(cls, app: celery.Celery) -> Any:
        """Bind to the app, and refuse a wrong declaration with one line."""
        bound = super().bind(app)
        # Celery has applied `task_annotations` by now, which may replace hooks and options alike.
        cls._keep_billing()
        if cls.sku is not None:
            options = {name: getattr(cls, name) for name in _OPTIONS}
            cls.definition = define(task=str(cls.name), options=options, run=_body(cls))
        return bound

    #: The checked declaration; there is none without a SKU.
    definition: ClassVar[Definition]

    @property
    def usage(self) -> usage_module.Recorder:
        """The recorder of the run that is going on. Raises `NotInARun` outside one."""
        return usage_module.current(self)

    def quote(self, *args: Any, **kwargs: Any) -> Quote:
        """Return what a call with these arguments would cost, and whether it would be admitted now."""
        if self.sku is None:
            raise Rejected(f"task {self.name}: is not billed: it has no SKU")
        definition = self.definition
        client_id = definition.client_of(args, kwargs, None)
        quantities = {definition.sku_of(args, kwargs): definition.charged_by_default(args, kwargs)}
        runtime = attachment_of(app_of(self)).runtime
        return quote_run(runtime, client_id, quantities, definition.held_at_most(args, kwargs))

    def map(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse, but in a dry run: `map` runs the body without hooks, unbilled."""
        _check_hooked(self, "map")
        return super().map(*args, **kwargs)

    def starmap(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse, but in a dry run: `starmap` runs the body without hooks, unbilled."""
        _check_hooked(self, "starmap")
        return super().starmap(*args, **kwargs)

    def chunks(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse, but in a dry run: `chunks` runs the body without hooks, unbilled."""
        _check_hooked(self, "chunks")
        return super().chunks(*args, **kwargs)


class Unhooked(Rejected):
    """The call would run a billable task's body without its hooks."""


def _check_hooked(task: BillableTask, name: str) -> None:
    app = app_of(task)
    refusal = Unhooked(f"task {task.name}: {name}() would run it unbilled: use celery.group of signatures instead")
    if task.sku is None or not is_attached(app) or not is_dry(task.definition, attachment_of(app).runtime.settings):
        raise refusal
    logger.warning("billing: dry run: %s", refusal)


def _body(cls: type[BillableTask]) -> Callable[..., Any]:
    """Return the body as it is called: without `self`."""
    resolved = inspect.getattr_static(cls, "run")
    if isinstance(resolved, staticmethod):
        return resolved.__func__
    return functools.partial(resolved, None)


def lifecycle_of(task: celery.Task[Any, Any]) -> Lifecycle | None:
    """Return what bills a task, or None for one that is not billed."""
    if not isinstance(task, BillableTask) or task.sku is None:
        return None
    return attachment_of(app_of(task)).lifecycle


def app_of(task: celery.Task[Any, Any]) -> celery.Celery:
    """Return the app itself: a task may hold a lazy proxy of it."""
    app = task.app
    current = getattr(app, "_get_current_object", None)
    return app if current is None else current()


def _reserving(hook: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(hook)
    def before_start(self: BillableTask, task_id: str, args: Any, kwargs: Mapping[str, Any]) -> Any:
        cycle = lifecycle_of(self)
        if cycle is not None and run_of(self) is None:
            begin(cycle, self, args, kwargs)
        return hook(self, task_id, args, kwargs)

    setattr(before_start, _WRAPPED, True)
    return before_start


def _settling(hook: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(hook)
    def on_success(self: BillableTask, retval: Any, task_id: str, args: Any, kwargs: Mapping[str, Any]) -> Any:
        # Billing first: a user's hook that raises must not lose the charge.
        settle_current(self)
        return hook(self, retval, task_id, args, kwargs)

    setattr(on_success, _WRAPPED, True)
    return on_success


def settle_current(task: celery.Task[Any, Any]) -> None:
    """Settle the run that just succeeded, once; signal `task_success` calls it again if the hook was lost."""
    run, cycle = run_of(task), lifecycle_of(task)
    if run is not None and cycle is not None:
        cycle.succeed(run)
    elif cycle is not None and task.request.id is not None and not task.request.called_directly:
        logger.error("billing: task %s (%s) ran without a reservation and is not charged", task.name, task.request.id)


def end_current(task: celery.Task[Any, Any], state: str | None, outcome: object) -> None:
    """End the delivery that just ended, however it did (signal `task_postrun`)."""
    run, cycle = run_of(task), lifecycle_of(task)
    if run is not None and cycle is not None:
        cycle.end(run, state, outcome)
