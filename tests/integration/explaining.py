"""What the tests of explain share: the story of a task of a fleet, once it says what it is to say."""

from __future__ import annotations

from typing import Any

import pytest

from billing.explaining.explain import explain
from billing.explaining.story import Story
from tests.fleet.harness import Fleet
from tests.waiting import wait_until


def story_of(fleet: Fleet, task_id: str, *, client_id: str | None = None, app: Any = None) -> Story:
    return explain(fleet.runtime, task_id, client_id=client_id, app=app)


def told(fleet: Fleet, task_id: str, begins: str, *, app: Any = None) -> Story:
    """Return the story of a task once its verdict begins like this."""
    seen: list[Story] = []

    def is_told() -> bool:
        seen[:] = [story_of(fleet, task_id, app=app)]
        return seen[0].verdict.startswith(begins)

    try:
        wait_until(is_told, f"{begins!r}", timeout_seconds=30)
    except AssertionError:
        pytest.fail(f"not {begins!r}: {seen}")
    return seen[0]


def whats(story: Story) -> list[str]:
    return [step.what for step in story.steps]
