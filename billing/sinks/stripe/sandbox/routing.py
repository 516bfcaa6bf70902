"""One call: how it is found by method and path, what it takes, what it is given when it runs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from billing.sinks.stripe.sandbox import errors
from billing.sinks.stripe.sandbox.params import Spec

if TYPE_CHECKING:
    from billing.sinks.stripe.sandbox.knobs import Knobs
    from billing.sinks.stripe.sandbox.state import State
    from billing.sinks.stripe.sandbox.store import Store

_ID: Final = "([A-Za-z0-9_-]{1,255})"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """What one call is given: `id` is the object's in its path, `key` its idempotency key, `now` its second."""

    state: State
    params: dict[str, Any]
    now: int
    id: str = ""
    key: str | None = None
    api: str = "v1"
    drop_code: str | None = None  #: the code with which Stripe drops the event later, of a fault

    @property
    def store(self) -> Store:
        """The memory."""
        return self.state.store

    @property
    def knobs(self) -> Knobs:
        """The knobs."""
        return self.state.knobs


Run = Callable[[Call], dict[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Route:
    """One call of the API: `path` may hold an object's id."""

    method: str
    path: re.Pattern[str]
    takes: Spec
    run: Run
    template: str


def route(method: str, template: str, takes: Spec, run: Run) -> Route:
    """Return a call; `{id}` in the template stands for an object's id."""
    pattern = re.compile(re.escape(template).replace(r"\{id\}", _ID))
    return Route(method=method, path=pattern, takes=takes, run=run, template=template)


class Table:
    """All calls. Those without an id in their path are found at once."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._fixed = {(one.method, one.template): one for one in self.routes if "{id}" not in one.template}
        self._with_id: dict[tuple[str, int], list[Route]] = {}
        for one in self.routes:
            if "{id}" in one.template:
                self._with_id.setdefault((one.method, one.template.count("/")), []).append(one)

    def find(self, method: str, path: str) -> tuple[Route, str]:
        """Return the call of a method and path, and the id in the path ("" without one)."""
        if (fixed := self._fixed.get((method, path))) is not None:
            return fixed, ""
        for one in self._with_id.get((method, path.count("/")), ()):
            if match := one.path.fullmatch(path):
                return one, match[1]
        raise errors.unrecognized_url(method, path)
