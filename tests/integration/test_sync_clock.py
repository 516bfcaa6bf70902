"""A machine whose clock is wrong neither plans nor sends: periods close, and events are dated, by it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy

from billing.core.errors import Fatal
from billing.core.settings import Settings
from billing.sinks.stripe import wiring
from billing.sinks.sync.same_time import check_clock
from tests.integration.syncing import TestClock

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(("minutes", "said"), [(-25, "behind"), (-5, "behind"), (5, "ahead of"), (25, "ahead of")])
def test_given_a_clock_that_differs_by_minutes_then_it_is_named(
    engine: sqlalchemy.Engine, minutes: int, said: str
) -> None:
    with pytest.raises(Fatal, match=rf"^clock: this machine is 0:\d\d:\S+ {said} PostgreSQL's time, must be at most 4"):
        check_clock(engine, TestClock(datetime.now(UTC) + timedelta(minutes=minutes)))


@pytest.mark.parametrize("minutes", [-3, 0, 3])
def test_given_a_clock_that_differs_by_less_then_it_is_taken(engine: sqlalchemy.Engine, minutes: int) -> None:
    check_clock(engine, TestClock(datetime.now(UTC) + timedelta(minutes=minutes)))


@pytest.mark.parametrize("step", [wiring.plan, wiring.close, wiring.push, wiring.confirm])
def test_given_a_wrong_clock_then_no_step_is_made(
    engine: sqlalchemy.Engine, database: Settings, step: Callable[[Any], object]
) -> None:
    class Runtime:
        settings = database
        clock = TestClock(datetime.now(UTC) - timedelta(minutes=20))

    Runtime.engine = engine  # type: ignore[attr-defined]
    with pytest.raises(Fatal, match=r"behind PostgreSQL"):
        step(Runtime)
