"""docs/stripe.md: a newcomer types it from nothing to an invoice, and each command prints what stands below it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from billing.embedded.stack import Stack
from tests.documents import DOCS
from tests.newcomer import Newcomer
from tests.wheels import ROOT

pytestmark = pytest.mark.integration

PAGE = DOCS / "stripe.md"
FLEET = ("celeryconfig.py", "beat_schedule.py", "flowerconfig.py")


@pytest.fixture
def newcomer(stack: Stack, wheel_environment: Path, tmp_path: Path) -> Iterator[Newcomer]:
    """Copy the fleet into a fresh directory. The session's servers only say whether such are installed."""
    for name in FLEET:
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "worker_tasks", tmp_path / "worker_tasks", ignore=shutil.ignore_patterns("__pycache__"))
    path = f"{wheel_environment / 'bin'}:{os.environ['PATH']}"
    newcomer = Newcomer(tmp_path, {"PATH": path, "COLUMNS": "160"})
    yield newcomer
    newcomer.close()


@pytest.mark.slow
def test_the_page_leads_from_nothing_to_an_invoice(newcomer: Newcomer) -> None:
    newcomer.follow(PAGE)
