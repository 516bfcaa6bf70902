"""The secrets that an operator makes before the first start."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.deploy.files import DEPLOY


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the secrets as an operator does."""
    directory = tmp_path_factory.mktemp("deploy") / "secrets"
    subprocess.run([DEPLOY / "make-secrets", directory], check=True, capture_output=True, timeout=60)
    (directory / "stripe_api_key").write_text("sk_test_51aaaaaaaaaaaa\n")
    return directory
