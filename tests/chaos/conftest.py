"""What takes many minutes runs when the environment says so: `LOSS_SIZE=full` (`make loss`), or `small` for a look."""

from __future__ import annotations

import os
from typing import Final

import pytest

LOSS_SIZE: Final = "LOSS_SIZE"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked `every_loss`, unless the size of the fleet was chosen."""
    if LOSS_SIZE in os.environ:
        return
    left_out = [item for item in items if item.get_closest_marker("every_loss") is not None]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
