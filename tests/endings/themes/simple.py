"""The drive of most cells: one task is sent, and its result and its state are looked at."""

from __future__ import annotations

from typing import Any

from tests.endings.cell import Drive, Looked
from tests.endings.scene import Scene


def sends(name: str, *args: Any, **options: Any) -> Drive:
    """Return a drive that sends one task."""

    def drive(scene: Scene) -> Looked:
        return scene.looked(scene.send(name, *args, **options))

    return drive
