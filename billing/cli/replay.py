"""`billing replay`: a recorded workload, billed row by row through a real fleet."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from billing.cli.amount import Amount
from billing.cli.context import find_app, settings
from billing.cli.output import emit_json, json_option
from billing.core.errors import Fatal
from billing.workload.layout import SPREAD_MAX, Layout
from billing.workload.price_list import read_prices
from billing.workload.recording import look_at

if TYPE_CHECKING:
    import celery

    from billing.core.settings import Settings

_GRANT: Final = Amount()
_WIDTH_MIN: Final = 100


@click.command(
    epilog="Example: billing replay access.log.gz --format combined; "
    "billing replay llm.csv --quantity ContextTokens+GeneratedTokens --spread 50 --sku =llm-tokens"
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--format", "format_", type=click.Choice(["csv", "combined"]), default="csv", show_default=True, help="Of the file."
)
@click.option("--client", default="", help="Column of the client, or =CLIENT for all rows. [default: client]")
@click.option("--sku", default="", help="Column of the SKU, or =SKU for all rows. [default: sku, or =web-kib]")
@click.option("--quantity", default="", help="Column of the quantity, A+B for a sum, or =1. [default: quantity]")
@click.option("--time", default="", help="Column of the time, which is only checked: the charge is of now.")
@click.option(
    "--spread",
    type=click.IntRange(1, SPREAD_MAX),
    help="No client column: deal rows out to N clients, client-0001 …, by data line (from 0) modulo N.",
)
@click.option("--grant", type=_GRANT, default="100000", show_default=True, help="Credits for each client, once.")
@click.option("--price", multiple=True, help="Credits per unit: 1, or SKU=2; repeat it. [default: as set, else 1]")
@json_option
def replay(  # noqa: PLR0913 - one argument per option
    *,
    file: Path,
    format_: Any,
    client: str,
    sku: str,
    quantity: str,
    time: str,
    spread: int | None,
    grant: int,
    price: tuple[str, ...],
    as_json: bool,
) -> None:
    """Bill each row of FILE (CSV or web log, plain or gzipped) as one task of a real fleet, and show the books.

    The recorded work itself is not repeated. Started again, it goes on where it ended and bills nothing twice.
    """
    layout = Layout(
        format=format_, client=client, sku=sku, quantity=quantity, time=time, spread=0 if spread is None else spread
    )
    prices = read_prices(price)
    recording = look_at(file, layout)
    from rich.console import Console  # noqa: PLC0415 - slow, and a refused file needs none of it

    from billing.embedded import replay as embedded  # noqa: PLC0415 - brings servers and fleet along
    from billing.workload import outcome_text  # noqa: PLC0415
    from billing.workload.progress import Steps  # noqa: PLC0415
    from billing.workload.replay import Plan  # noqa: PLC0415

    app = click.get_current_context().meta.get("billing.app") or embedded.APP
    _require(app)
    console = Console(stderr=as_json)
    steps = Steps(console)
    plan = Plan(recording=recording, grant=grant, prices=prices)
    outcome = embedded.run(plan, app, steps, find=lambda: _configured(app))
    if as_json:
        emit_json(outcome_text.outcome_json(outcome))
    else:
        # Numbers are never cut: a terminal that is too narrow wraps the table's lines.
        Console(width=max(console.width, _WIDTH_MIN)).print(outcome_text.render(outcome))
        style = "bold green" if outcome.ok else "bold red"
        console.print(outcome_text.last_line(outcome), style=style, highlight=False)
    console.print(f"[dim]{steps.summary()}[/]", highlight=False)
    if not outcome.ok:
        click.get_current_context().exit(1)


def _configured(app: Any) -> tuple[Settings, celery.Celery]:
    """Return the settings that are configured, and the app through which rows are sent."""
    from billing.embedded.replay import load_app  # noqa: PLC0415

    found = settings()
    given = find_app()
    if given is None:
        given = load_app(app)
    else:
        given.loader.import_default_modules()
    return found, given


def _require(app: Any) -> None:
    """Refuse early where the fleet's app is not importable: it ships with the checkout, not with the wheel."""
    if not isinstance(app, str):
        return
    sys.path.insert(0, str(Path.cwd()))
    if importlib.util.find_spec(app.split(".", 1)[0].partition(":")[0]) is None:
        raise Fatal(f"--app: {app!r}: is not importable from here: name your own app, or use the project's checkout")
