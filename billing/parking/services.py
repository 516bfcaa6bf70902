"""What the room needs of a process: its settings, PostgreSQL, the buckets, the clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from billing.core.clock import Clock
from billing.core.settings import Settings
from billing.credits.verbs import Verbs

if TYPE_CHECKING:
    import sqlalchemy


class Services(Protocol):
    """What a process has."""

    @property
    def settings(self) -> Settings: ...  # noqa: D102 - see Runtime

    @property
    def engine(self) -> sqlalchemy.Engine: ...  # noqa: D102 - see Runtime

    @property
    def buckets(self) -> Verbs: ...  # noqa: D102 - see Runtime

    @property
    def clock(self) -> Clock: ...  # noqa: D102 - see Runtime
