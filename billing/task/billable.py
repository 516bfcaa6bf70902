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
from billing.task.definition import OPTIONS, Definition, Quantity, Reserve, Sku, body_of, define
from billing.task.gate import begin, prepare_delivery
from billing.task.lifecycle import Lifecycle
from billing.task.modes import is_dry
from billing.task.observer import tell_end
from billing.task.overrides import carried
from billing.task.quoting import Quote, quote_call
from billing.task.run import Run, attach_run, run_of
from billing.task.submitting import check_submitted, is_first

logger = logging.getLogger(__name__)

_WRAPPED: Final = "_billing_wraps"
#: What makes a task's declaration another one than its class's, when the task itself has it.
_OWN: Final = frozenset({*OPTIONS, "name"})
_CALLABLE_OPTIONS: Final = ("sku", "quantity", "reserve")
#: What billing does in front of a hook.
First = Callable[["BillableTask"], None]
_CELERYS_OWN: Final = "celery."


class BillableTask(celery.Task):  # type: ignore[type-arg]  # Celery's class takes none at run time
    """A task whose success is charged to a client.

    Options, on the class or in the decorator:

    * `sku`: what is sold: its name, or a callable that takes the task's arguments without `self`. A task without one
      is not billed (a shared base class, Celery's built-in tasks).
    * `quantity`: how much of it, in the SKU's unit: a whole number (default 1) or a callable that takes the task's
      arguments without `self`.
    * `reserve`: the most the run may use, when that is more than `quantity`: a whole number, a mapping of SKU to
      quantity for runs that use several, or a callable that returns either.
    * `credits`: what one success costs under `sku`, with quantity 1, whatever the price book says.
      Not beside `quantity`.
    * `client`: the name of the argument that says who pays (default `client_id`).
    * `on_exhausted`: what a delivery does whose client cannot pay now, where not as `billing_on_exhausted` says.
    * `refuse_early`: whether `apply_async` raises for what could not start now; the reservation stays the gate.
    * `on_redis_down`: what it does while Redis is away, where not as `billing_on_redis_down` says.
    * `dry_run`: whether nothing is charged and nothing refused, where not as `billing_dry_run` says.

    One call may say `billing_quantity=`, `billing_reserve=` and `billing_client=` in `apply_async`, or as headers.
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
    credits: ClassVar[int | None] = None
    refuse_early: ClassVar[bool] = False
    _definition: ClassVar[Definition]
    on_redis_down: ClassVar[OnRedisDown | None] = None
    dry_run: ClassVar[bool | None] = None

    def __init_subclass__(cls, **options: Any) -> None:
        """Wrap the hooks as this class resolves them, and keep callables from becoming methods."""
        super().__init_subclass__(**options)
        cls._keep_billing()

    @classmethod
    def _keep_billing(cls) -> None:
        for name in _CALLABLE_OPTIONS:
            option = inspect.getattr_static(cls, name)
            if callable(option) and not isinstance(option, staticmethod):
                setattr(cls, name, staticmethod(option))
        for name, first in _FIRST.items():
            hook = inspect.getattr_static(cls, name)
            # A user's `functools.wraps` copies the mark to a function that is not ours.
            if getattr(hook, _WRAPPED, None) is not hook:
                setattr(cls, name, _behind(first, hook))

    @classmethod
    def bind(cls, app: celery.Celery) -> Any:
        """Bind to the app, and refuse a wrong declaration with one line."""
        bound = super().bind(app)
        # Celery has applied `task_annotations` by now, which may replace hooks and options alike.
        cls._keep_billing()
        if cls.__module__.startswith(_CELERYS_OWN):
            # On an app whose default class has a SKU: nobody buys the unlocking of a chord.
            cls.sku = None
        if cls.sku is not None:
            name = str(cls.name or app.gen_task_name(str(cls.__name__), cls.__module__))
            cls._definition = define(
                task=name, options={option: getattr(cls, option) for option in OPTIONS}, run=body_of(cls)
            )
        return bound

    def __setattr__(self, name: str, value: Any) -> None:
        """Keep billing in front of a hook that is assigned to the task itself, and refuse a wrong option."""
        if name in _FIRST:
            value = functools.partial(_first_then, _FIRST[name], self, value)
        elif name in OPTIONS and type(self).__bound__ and (is_billed(self) or (name == "sku" and value is not None)):
            self.__dict__["_definition"] = self._declared({name: value})
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        """Take an option back, as a patch of a test does: the class's counts again."""
        super().__delattr__(name)
        if name in OPTIONS:
            self.__dict__.pop("_definition", None)

    @property
    def definition(self) -> Definition:
        """The checked declaration; there is none without a SKU."""
        own, checked = self.__dict__, hasattr(type(self), "_definition")
        if "_definition" not in own and self.sku is not None and not (checked and own.keys().isdisjoint(_OWN)):
            own["_definition"] = self._declared({})
        return self._definition

    def _declared(self, changes: Mapping[str, Any]) -> Definition:
        """Return the declaration of this very task, whose options may differ from its class's."""
        options = {name: getattr(self, name) for name in OPTIONS}
        return define(task=str(self.name), options={**options, **changes}, run=body_of(type(self)))

    @property
    def usage(self) -> usage_module.Recorder:
        """The recorder of the run that is going on. Raises `NotInARun` outside one."""
        return usage_module.current(self)

    def quote(self, *args: Any, **kwargs: Any) -> Quote:
        """Return what a call with these arguments would cost, and whether it would be admitted now."""
        if self.sku is None:
            raise Rejected(f"task {self.name}: is not billed: it has no SKU")
        client_id = self.definition.client_of(args, kwargs, None)
        return quote_call(attachment_of(app_of(self)).runtime, self.definition, client_id, (args, kwargs))

    def apply_async(self, args: Any = None, kwargs: Any = None, *rest: Any, **options: Any) -> Any:
        """Submit as Celery does. Raises `Rejected` for what no delivery of the call could be billed for.

        The keywords `billing_client`, `billing_quantity` and `billing_reserve` say who pays, what is charged and what
        is held for this one call; they are carried as headers.
        """
        options = carried(str(self.name), options, refuses=is_first(options.get("headers") or {}, options))
        if is_billed(self) and not _is_dry(self):
            dump = getattr(self, "_dump_pydantic_arguments", None)
            call = (args or (), kwargs or {}) if dump is None else dump(args or (), kwargs or {})
            check_submitted(self.definition, lambda: attachment_of(app_of(self)).runtime, call, options)
        return super().apply_async(args, kwargs, *rest, **options)

    def apply(self, args: Any = None, kwargs: Any = None, *rest: Any, **options: Any) -> Any:
        """Run here and now as Celery does, with the keywords of `apply_async`."""
        return super().apply(args, kwargs, *rest, **carried(str(self.name), options))

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


def _check_hooked(task: BillableTask, call: str) -> None:
    if not _is_dry(task):
        raise _unhooked(task, call)
    logger.warning("billing: dry run: %s", _unhooked(task, call))


def check_inline(task: Any, call: str) -> None:
    """Refuse that a worker calls the body of a billed task as `map` or `starmap` of a canvas does, without hooks."""
    if is_billed(task):
        _check_hooked(task, call)


def _unhooked(task: BillableTask, call: str) -> Unhooked:
    return Unhooked(f"task {task.name}: {call}() would run it unbilled: use celery.group of signatures instead")


def _is_dry(task: BillableTask) -> bool:
    """Return whether nothing of a task is refused or charged."""
    app = app_of(task)
    return task.sku is not None and is_attached(app) and is_dry(task.definition, attachment_of(app).runtime.settings)


def is_billed(task: object) -> bool:
    """Return whether a task is one whose success is charged."""
    return isinstance(task, BillableTask) and task.sku is not None


def lifecycle_of(task: celery.Task[Any, Any]) -> Lifecycle | None:
    """Return what bills a task, or None for one that is not billed."""
    return attachment_of(app_of(task)).lifecycle if is_billed(task) else None


def app_of(task: celery.Task[Any, Any]) -> celery.Celery:
    """Return the app itself: a task may hold a lazy proxy of it."""
    app = task.app
    current = getattr(app, "_get_current_object", None)
    return app if current is None else current()


def _behind(first: First, hook: Any) -> Callable[..., Any]:
    """Return a hook of a class with billing in front of it, whatever kind of attribute the hook is."""

    @functools.wraps(hook)
    def guarded(self: BillableTask, *args: Any, **kwargs: Any) -> Any:
        bound = hook.__get__(self, type(self)) if hasattr(type(hook), "__get__") else hook
        return _first_then(first, self, bound, *args, **kwargs)

    setattr(guarded, _WRAPPED, guarded)
    return guarded


def _first_then(first: First, task: BillableTask, hook: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    # Billing first: a user's hook that raises must not lose the charge.
    first(task)
    return hook(*args, **kwargs)


def _reserve(task: BillableTask) -> None:
    cycle = lifecycle_of(task)
    if cycle is not None and run_of(task) is None:
        begin(cycle, task, task.request.args or (), task.request.kwargs or {})


def settle_current(task: celery.Task[Any, Any]) -> None:
    """Settle the run that just succeeded, once; signal `task_success` calls it again if the hook was lost."""
    run, cycle = run_of(task), lifecycle_of(task)
    if cycle is None:
        return
    lost = run is None and task.request.id is not None and not task.request.called_directly
    if lost and isinstance(task, BillableTask) and not _is_dry(task):
        run = _past_the_gate(cycle, task)
    if run is not None:
        cycle.succeed(run)


def _past_the_gate(cycle: Lifecycle, task: Any) -> Run | None:
    """Return a run to charge late for a delivery that nothing was reserved for: its hook was taken away (L3).

    Somebody has set `before_start` on the class itself, once Celery had bound it.
    """
    where = f"task {task.name} ({task.request.id})"
    try:
        run = prepare_delivery(cycle, task, task.request.args or (), task.request.kwargs or {})
        attach_run(task, run)
    except Exception:
        logger.exception("billing: %s ran without a reservation and is not charged", where)
        return None
    logger.error("billing: %s ran without a reservation and is charged late", where)
    return run


def end_current(task: celery.Task[Any, Any], state: str | None, outcome: object) -> None:
    """End the delivery that just ended, however it did (signal `task_postrun`)."""
    run, cycle = run_of(task), lifecycle_of(task)
    if run is not None and cycle is not None:
        cycle.end(run, state, outcome)
    if cycle is not None and cycle.runtime.observer is not None and not task.request.is_eager:
        tell_end(cycle.runtime.observer, run, state, outcome)


#: The hooks that billing stands in front of.
_FIRST: Final[dict[str, First]] = {"before_start": _reserve, "on_success": settle_current}
# Subclasses are wrapped when they are made; a class that breaks that still inherits hooks that bill.
BillableTask._keep_billing()  # noqa: SLF001 - its own module
