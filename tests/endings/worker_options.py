"""How a cell tells a worker of its own that it wants it configured otherwise."""

from __future__ import annotations

from typing import Final

#: An environment variable: settings of Celery, as JSON.
CONFIGURATION: Final = "ENDINGS_CONFIGURATION"
