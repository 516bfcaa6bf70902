"""What a billable task declares (client, SKU, quantity, most it may use), checked once when the app finalizes.

Pure: from the declaration and the arguments of one call it says who pays, what to hold before the run, and what is
charged when nothing was recorded. It refuses a wrong declaration with one line that names task, option and rule.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast, get_args

from billing.core.credits import check_amount
from billing.core.errors import BillingError, InvalidValue
from billing.core.identifiers import check_client_id, check_sku
from billing.core.parsers import choice
from billing.core.settings import OnExhausted, OnRedisDown

Sku = str | Callable[..., str]
Quantity = int | Callable[..., int]
Reserve = int | Mapping[str, int] | Callable[..., int | Mapping[str, int]]

OTHERS_ONLY: Final = "must map other SKUs than the task's own to quantities: credits fixes what its own costs"
_STARS: Final[Mapping[Any, str]] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
#: What a task may declare, on its class or in its decorator.
OPTIONS: Final = (
    *("sku", "quantity", "reserve", "client", "credits"),
    *("on_exhausted", "on_redis_down", "refuse_early", "dry_run"),
)
#: Lines (SKUs) that one run may have at most (L9).
LINES_MAX: Final = 32


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Definition:
    """A checked declaration. `sku`, `quantity` and `reserve` take the task's arguments, without `self`."""

    task: str
    sku: Sku
    client: str
    quantity: Quantity
    reserve: Reserve | None
    #: What a delivery does whose client cannot pay now; None: as the setting says.
    on_exhausted: OnExhausted | None = None
    #: What one success costs under the task's own SKU, with quantity 1; None: as the price book says.
    credits: int | None = None
    #: Whether a submission is refused that could not start now.
    refuse_early: bool = False
    #: The call has said its own quantity, or its most: what is charged by default is held at least.
    holds_default: bool = False
    #: What a delivery does while Redis is away; None: as the setting says.
    on_redis_down: OnRedisDown | None = None
    #: Whether nothing is billed or refused; None: as the setting says.
    dry_run: bool | None = None
    signature: inspect.Signature

    def client_of(self, args: Sequence[Any], kwargs: Mapping[str, Any], header: str | None) -> str:
        """Return who pays: the argument named by `client`, or the header `billing_client`; refuse two that differ."""
        argument = self._argument(args, kwargs)
        if argument is None and header is None:
            raise InvalidValue(
                self.client,
                None,
                f"task {self.task} ({_named(self.sku)}) has no client: give the argument, or the header billing_client",
            )
        if argument is None:
            return check_client_id(header, field="billing_client")
        client_id = check_client_id(argument, field=self.client)
        if header is not None and header != client_id:
            raise InvalidValue("billing_client", header, f"names another client than the argument {self.client!r}")
        return client_id

    def sku_of(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Return what is sold."""
        if not callable(self.sku):
            return self.sku
        return check_sku(self._called("sku", self.sku, args, kwargs), field=f"sku of {self.task}")

    def charged_by_default(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
        """Return the quantity of the task's own SKU that is charged when the run records none."""
        quantity = self._called("quantity", self.quantity, args, kwargs) if callable(self.quantity) else self.quantity
        return check_amount(f"quantity of {self.task}", quantity, minimum=0)

    def fixed(self, sku: str) -> dict[str, int]:
        """Return the credits that do not follow from the price book, by SKU; `sku` is the call's own."""
        return {} if self.credits is None else {sku: self.credits}

    def held_at_most(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, int]:
        """Return the quantities to hold before the run, by SKU; the task's own SKU comes first."""
        sku, default = self.sku_of(args, kwargs), self.charged_by_default(args, kwargs)
        reserve = self._called("reserve", self.reserve, args, kwargs) if callable(self.reserve) else self.reserve
        if reserve is None:
            return {sku: default}
        if self.credits is not None and (not isinstance(reserve, Mapping) or sku in reserve):
            raise InvalidValue(f"reserve of {self.task}", reserve, OTHERS_ONLY)
        least = default if self.holds_default else 0
        if not isinstance(reserve, Mapping):
            return {sku: max(least, check_amount(f"reserve of {self.task}", reserve, minimum=0))}
        held = {sku: default, **reserve}
        if len(held) > LINES_MAX:
            raise InvalidValue(f"reserve of {self.task}", len(held), f"must name at most {LINES_MAX} SKUs")
        checked = {check_sku(name): check_amount(f"reserve[{name!r}]", n, minimum=0) for name, n in held.items()}
        return checked | {sku: max(least, checked[sku])}

    def takes(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether the arguments fit the task."""
        return self._bound(args, kwargs) is not None

    def _argument(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> object:
        if self.client in kwargs:
            return kwargs[self.client]
        bound = self._bound(args, kwargs)
        return None if bound is None else bound.arguments.get(self.client)

    def _called(self, option: str, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call with all of the task's arguments, however this call passed them and whatever it left to a default."""
        bound = self._bound(args, kwargs)
        try:
            return function(*args, **kwargs) if bound is None else function(*bound.args, **bound.kwargs)
        except BillingError:
            raise
        except Exception as error:
            rule = f"must not raise: {type(error).__name__}: {error}".splitlines()[0]
            raise InvalidValue(f"task {self.task}: {option}", _name(function), rule) from error

    def _bound(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> inspect.BoundArguments | None:
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError:
            # Celery refuses the call itself, with a better message, when it runs the task.
            return None
        bound.apply_defaults()
        return bound


def define(*, task: str, options: Mapping[str, Any], run: Callable[..., Any]) -> Definition:
    """Check the options of a task class and return its definition, or raise `InvalidValue`."""
    sku, quantity, reserve, client = (options.get(name) for name in ("sku", "quantity", "reserve", "client"))
    credits_ = options.get("credits")
    where = f"task {task}: "
    if not isinstance(client, str) or not client.isidentifier():
        raise InvalidValue(f"{where}client", client, "must be the name of an argument")
    signature = inspect.signature(run)
    if callable(sku):
        _check_callable(f"{where}sku", sku, signature)
    else:
        check_sku(sku, field=f"{where}sku")
    if credits_ is not None:
        _check_credits(where, credits_, options)
    quantity = 1 if quantity is None else quantity
    if callable(quantity):
        _check_callable(f"{where}quantity", quantity, signature)
    else:
        check_amount(f"{where}quantity", quantity, minimum=0)
    if callable(reserve):
        _check_callable(f"{where}reserve", reserve, signature)
    elif reserve is not None:
        check_reserve(f"{where}reserve", reserve, sku)
    _check_policies(where, options)
    refuse_early = options.get("refuse_early", False)
    if not isinstance(refuse_early, bool):
        raise InvalidValue(f"{where}refuse_early", refuse_early, "must be True or False")
    return Definition(
        task=task,
        sku=cast("Sku", sku),
        client=client,
        quantity=quantity,
        reserve=reserve,
        on_exhausted=options.get("on_exhausted"),
        on_redis_down=options.get("on_redis_down"),
        dry_run=options.get("dry_run"),
        credits=credits_,
        refuse_early=refuse_early,
        signature=signature,
    )


def body_of(cls: type) -> Callable[..., Any]:
    """Return the body as it is called: without `self`."""
    resolved: Any = inspect.getattr_static(cls, "run")
    if isinstance(resolved, staticmethod):
        return resolved.__func__
    own: Any = resolved.__func__ if isinstance(resolved, classmethod) else resolved
    return functools.partial(own, None)


def check_reserve(field: str, reserve: object, sku: object) -> None:
    """Refuse what is no most that a run of `sku` may use: a whole number, or a mapping of SKUs to such."""
    if not isinstance(reserve, Mapping):
        check_amount(field, reserve, minimum=0)
        return
    if len({sku, *reserve}) > LINES_MAX:
        raise InvalidValue(field, len(reserve), f"must name at most {LINES_MAX} SKUs")
    for name, most in reserve.items():
        check_sku(name, field=field)
        check_amount(f"{field}[{name!r}]", most, minimum=0)


def _check_policies(where: str, options: Mapping[str, Any]) -> None:
    """Refuse what is no policy; None stands for the setting's."""
    for name, policies in (("on_exhausted", OnExhausted), ("on_redis_down", OnRedisDown)):
        if options.get(name) is not None:
            choice(*get_args(policies))(f"{where}{name}", options[name])
    dry_run = options.get("dry_run")
    if not isinstance(dry_run, bool | None):
        raise InvalidValue(f"{where}dry_run", dry_run, "must be True, False, or None for the setting's")


def _named(sku: Sku) -> str:
    return "its SKU depends on the call" if callable(sku) else f"SKU {sku!r}"


def _check_credits(where: str, credits_: object, options: Mapping[str, Any]) -> None:
    check_amount(f"{where}credits", credits_, minimum=0)
    if options.get("quantity") is not None:
        raise InvalidValue(
            f"{where}credits", credits_, "must not be set beside quantity: one of them says what is charged"
        )
    reserve = options.get("reserve")
    whole = reserve is not None and not callable(reserve) and not isinstance(reserve, Mapping)
    if whole or (isinstance(reserve, Mapping) and options.get("sku") in reserve):
        raise InvalidValue(f"{where}reserve", reserve, OTHERS_ONLY)


def _check_callable(field: str, function: Callable[..., Any], run: inspect.Signature) -> None:
    """Refuse a callable that cannot be called with the task's own arguments, however many a call may pass."""
    kinds = inspect.Parameter
    parameters = run.parameters.values()
    positional = [p.name for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    keyword = {p.name: None for p in parameters if p.kind is kinds.KEYWORD_ONLY}
    any_number = {p.kind for p in parameters} & {kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD}
    try:
        takes = inspect.signature(function)
        takes.bind(*positional, **keyword)
    except (TypeError, ValueError):
        takes = None
    if takes is None or not any_number <= {p.kind for p in takes.parameters.values()}:
        names = ", ".join(_STARS.get(p.kind, "") + p.name for p in parameters)
        raise InvalidValue(field, _name(function), f"must take the task's arguments ({names})")


def _name(function: object) -> str:
    return str(getattr(function, "__name__", None) or type(function).__name__)
