"""What a billable task declares (client, SKU, quantity, most it may use), checked once when the app finalizes.

Pure: from the declaration and the arguments of one call it says who pays, what to hold before the run, and what is
charged when nothing was recorded. It refuses a wrong declaration with one line that names task, option and rule.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast, get_args

from billing.core.credits import check_amount
from billing.core.errors import InvalidValue
from billing.core.identifiers import check_client_id, check_sku
from billing.core.parsers import choice
from billing.core.settings import OnExhausted, OnRedisDown

Sku = str | Callable[..., str]
Quantity = int | Callable[..., int]
Reserve = int | Mapping[str, int] | Callable[..., int | Mapping[str, int]]

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
        return check_sku(self._called(self.sku, args, kwargs), field=f"sku of {self.task}")

    def charged_by_default(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
        """Return the quantity of the task's own SKU that is charged when the run records none."""
        quantity = self._called(self.quantity, args, kwargs) if callable(self.quantity) else self.quantity
        return check_amount(f"quantity of {self.task}", quantity, minimum=0)

    def held_at_most(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, int]:
        """Return the quantities to hold before the run, by SKU; the task's own SKU comes first."""
        sku, default = self.sku_of(args, kwargs), self.charged_by_default(args, kwargs)
        reserve = self._called(self.reserve, args, kwargs) if callable(self.reserve) else self.reserve
        if reserve is None:
            return {sku: default}
        if not isinstance(reserve, Mapping):
            return {sku: check_amount(f"reserve of {self.task}", reserve, minimum=0)}
        held = {sku: default, **reserve}
        if len(held) > LINES_MAX:
            raise InvalidValue(f"reserve of {self.task}", len(held), f"must name at most {LINES_MAX} SKUs")
        return {check_sku(name): check_amount(f"reserve[{name!r}]", n, minimum=0) for name, n in held.items()}

    def _argument(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> object:
        if self.client in kwargs:
            return kwargs[self.client]
        bound = self._bound(args, kwargs)
        return None if bound is None else bound.arguments.get(self.client)

    def _called(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call with all of the task's arguments, however this call passed them and whatever it left to a default."""
        bound = self._bound(args, kwargs)
        return function(*args, **kwargs) if bound is None else function(*bound.args, **bound.kwargs)

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
    where = f"task {task}: "
    if not isinstance(client, str) or not client.isidentifier():
        raise InvalidValue(f"{where}client", client, "must be the name of an argument")
    signature = inspect.signature(run)
    if callable(sku):
        _check_callable(f"{where}sku", sku, signature)
    else:
        check_sku(sku, field=f"{where}sku")
    quantity = 1 if quantity is None else quantity
    if callable(quantity):
        _check_callable(f"{where}quantity", quantity, signature)
    else:
        check_amount(f"{where}quantity", quantity, minimum=0)
    if callable(reserve):
        _check_callable(f"{where}reserve", reserve, signature)
    elif isinstance(reserve, Mapping):
        if len({sku, *reserve}) > LINES_MAX:
            raise InvalidValue(f"{where}reserve", len(reserve), f"must name at most {LINES_MAX} SKUs")
        for name, most in reserve.items():
            check_sku(name, field=f"{where}reserve")
            check_amount(f"{where}reserve[{name!r}]", most, minimum=0)
    elif reserve is not None:
        check_amount(f"{where}reserve", reserve, minimum=0)
    _check_policies(where, options)
    return Definition(
        task=task,
        sku=cast("Sku", sku),
        client=client,
        quantity=quantity,
        reserve=reserve,
        on_exhausted=options.get("on_exhausted"),
        on_redis_down=options.get("on_redis_down"),
        dry_run=options.get("dry_run"),
        signature=signature,
    )


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


def _check_callable(field: str, function: Callable[..., Any], run: inspect.Signature) -> None:
    """Refuse a callable that cannot be called with the task's own arguments."""
    kinds = inspect.Parameter
    positional = [
        p.name for p in run.parameters.values() if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
    ]
    keyword = {p.name: None for p in run.parameters.values() if p.kind is kinds.KEYWORD_ONLY}
    try:
        inspect.signature(function).bind(*positional, **keyword)
    except (TypeError, ValueError):
        names = ", ".join(run.parameters)
        raise InvalidValue(
            field, getattr(function, "__name__", function), f"must take the task's arguments ({names})"
        ) from None
