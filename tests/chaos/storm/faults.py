"""The register of faults: what each kind of `plan` does to a site, as a context that lasts as long as the fault."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from tests.chaos.storm.site import Site

Fault = Callable[[Site, random.Random], AbstractContextManager[None]]


#: By the names of `plan.KINDS`.
FAULTS: Final[dict[str, Fault]] = {}


def fault(name: str) -> Callable[[Fault], Fault]:
    """Enter what a kind of fault does."""

    def enter(found: Fault) -> Fault:
        FAULTS[name] = found
        return found

    return enter
