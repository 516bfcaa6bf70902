"""Tests of full size take many minutes: they run when `FULL_SIZE=1` says so (`make loss`)."""

from __future__ import annotations

import os

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked `full_size`, or all the rest where the full size is asked for."""
    wanted = os.environ.get("FULL_SIZE", "") not in ("", "0")
    left_out = [item for item in items if (item.get_closest_marker("full_size") is not None) and not wanted]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
