"""An observer that notes what it is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Noted:
    """What was told, in its order: the name of it, and what was said, but for how long it took."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Take whatever an observer is told."""

        def note(*said: Any) -> None:
            self.told.append((name, *(each for each in said if not isinstance(each, float))))

        return note

    def of(self, *names: str) -> list[tuple[Any, ...]]:
        """Return what was told of some things."""
        return [told for told in self.told if told[0] in names]
