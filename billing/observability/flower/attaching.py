"""Gives the Flower that is starting what billing adds to it, and checks where it listens.

Guarantee: no arguments and no results of a task in any page or answer, and no address but loopback without
authentication. Flower has no interface for columns (flower#570), so this is a shim for the versions named here; under
another one Flower starts as it is, and says so in its log.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any, Final

from tornado.options import OptionParser, options

from billing.observability.flower.access import LOOPBACK, asks_who, check_access
from billing.observability.flower.tasks import COLUMNS, shown

__all__ = ["COLUMNS", "SUPPORTED", "attach"]

logger = logging.getLogger(__name__)

#: Versions whose insides the shim was written for and is tested with.
SUPPORTED: Final = "2.2."


def attach() -> None:
    """Give the Flower that is starting its billing columns, hide what it must not show, and check where it listens.

    Call it in `flowerconfig.py`; what that file, the environment (`FLOWER_*`) or the command line say of an option
    wins. Ends the process with one line when Flower would listen beyond loopback without authentication.
    """
    _set_unless_said(options, os.environ, {"address": LOOPBACK, "read_only": True})
    # Tornado calls this when the command line, which comes last, has been read.
    options.add_parse_callback(_refuse_open_access)
    version = _version()
    if not version.startswith(SUPPORTED):
        logger.warning(
            "billing: Flower %s starts without billing's columns, and shows arguments and results of tasks: "
            "the columns are written for %sx",
            version,
            SUPPORTED,
        )
        return
    # It says at each look at the database's version which one it is, and Flower shows what is said.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # Its insides are imported for a version that has them.
    from billing.observability.flower import fleet_metrics, navigation, pages  # noqa: PLC0415

    # The link is in every page, so that what gets more of billing gets it on top.
    navigation.add_billing_pages()
    pages.install()
    fleet_metrics.install()
    _set_unless_said(options, os.environ, {"tasks_columns": ",".join(COLUMNS), "format_task": shown})


def _version() -> str:
    import flower  # noqa: PLC0415 - this module is importable where Flower is not installed

    return str(flower.__version__)


def _set_unless_said(parser: OptionParser, environment: Mapping[str, str], values: Mapping[str, Any]) -> None:
    """Set options that Flower's own `FLOWER_*` variables do not set; the command line is read again after this."""
    for name, value in values.items():
        if name in parser and f"FLOWER_{name.upper()}" not in environment:
            setattr(parser, name, value)


def _refuse_open_access() -> None:
    refused = check_access(
        address=options.address,
        unix_socket=options.unix_socket,
        authenticated=asks_who(basic_auth=options.basic_auth, auth=options.auth),
    )
    if refused is not None:
        raise SystemExit(f"billing: {refused}")
