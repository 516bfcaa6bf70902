"""What a replay is told of its file: which column, or which fixed value, each field of a row comes from. Pure.

A value written `=acme` is fixed for all rows, any other is the name of a column; a quantity may be a sum of columns,
`A+B`. Without a client column `spread` deals the rows out to that many clients by their place in the file.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Final, Literal

from billing.core.errors import InvalidValue
from billing.core.identifiers import check_client_id, check_sku
from billing.workload.rows import read_quantity, short

Format = Literal["csv", "combined"]

#: Clients that `--spread` deals rows out to at most (L9).
SPREAD_MAX: Final = 9_999
#: What a started KiB of a web log is sold as, unless the replay is told otherwise.
COMBINED_SKU: Final = "web-kib"
_COLUMNS_SHOWN: Final = 30


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The options of a replay that decide on its rows, as they were typed; "" is not given."""

    format: Format = "csv"
    client: str = ""
    sku: str = ""
    quantity: str = ""
    time: str = ""
    spread: int = 0

    def resolved(self) -> Layout:
        """Return the layout with its defaults written out."""
        if self.format == "combined":
            return dataclasses.replace(self, sku=self.sku or f"={COMBINED_SKU}")
        client = self.client or ("" if self.spread else "client")
        return dataclasses.replace(self, client=client, sku=self.sku or "sku", quantity=self.quantity or "quantity")

    def canonical(self) -> bytes:
        """Return the same bytes for the same options; a default that is written out is the same."""
        return json.dumps(dataclasses.asdict(self.resolved()), sort_keys=True).encode()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where a field of a row comes from: a fixed value, or columns by their position (several are added up)."""

    fixed: str | None = None
    positions: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Where every field of a CSV row comes from; `client` is None where rows are dealt out to `spread` clients."""

    columns: int
    client: Source | None
    sku: Source
    quantity: Source
    time: Source | None
    spread: int


def select(layout: Layout, header: Sequence[str]) -> Selection:
    """Resolve a layout against the header of a CSV file, or raise `InvalidValue` that names the columns there are."""
    if layout.spread and layout.client:
        raise InvalidValue("--spread", layout.spread, "is for files without clients: leave --client out")
    layout = layout.resolved()
    client = None if layout.spread else _source("--client", layout.client, header)
    sku = _source("--sku", layout.sku, header)
    quantity = _source("--quantity", layout.quantity, header, summed=True)
    time = _source("--time", layout.time, header) if layout.time else None
    return Selection(columns=len(header), client=client, sku=sku, quantity=quantity, time=time, spread=layout.spread)


def combined_sku(layout: Layout) -> str:
    """Return the SKU of a log in the combined format, or raise `InvalidValue` for options that it does not take."""
    for name in ("client", "quantity", "time", "spread"):
        if getattr(layout, name):
            rule = "is for CSV: a combined log says client, quantity and time by itself"
            raise InvalidValue(f"--{name}", getattr(layout, name), rule)
    if layout.sku and not layout.sku.startswith("="):
        raise InvalidValue("--sku", layout.sku, "a combined log has no columns: write a fixed SKU as =web-kib")
    return check_sku(layout.resolved().sku[1:], field="--sku")


def spread_client(place: int, spread: int) -> str:
    """Return the client of a row by its place among the file's data lines, counted from 0: place modulo `spread`."""
    return f"client-{place % spread + 1:04d}"


def _source(option: str, value: str, header: Sequence[str], *, summed: bool = False) -> Source:
    if value.startswith("="):
        _check_fixed(option, value[1:])
        return Source(fixed=value[1:])
    # A column may itself be named with a plus sign.
    names = value.split("+") if summed and value not in header else [value]
    return Source(positions=tuple(_position(option, name, header) for name in names))


def _position(option: str, name: str, header: Sequence[str]) -> int:
    found = [position for position, column in enumerate(header) if column == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise InvalidValue(option, name, f"is the name of {len(found)} columns: rename one of them")
    shown = ", ".join(short(column) for column in header[:_COLUMNS_SHOWN])
    more = f" and {len(header) - _COLUMNS_SHOWN} more" if len(header) > _COLUMNS_SHOWN else ""
    raise InvalidValue(option, name, f"is no column of the file; its columns are: {shown}{more} (a fixed value: =…)")


def _check_fixed(option: str, value: str) -> None:
    if option == "--client":
        check_client_id(value, field=option)
    elif option == "--sku":
        check_sku(value, field=option)
    elif option == "--quantity":
        try:
            read_quantity(value)
        except InvalidValue as refused:
            raise InvalidValue(option, value, refused.rule) from None
    else:
        raise InvalidValue(option, f"={value}", "must be a column: rows were not all recorded at once")
