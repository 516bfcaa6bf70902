"""Writes all that billing has of a client into one zip: a file of JSON lines per table, and a list of them.

The zip is there whole or not at all, of one instant, and is written as the rows come in, whatever their number.
"""

from __future__ import annotations

import dataclasses
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from billing.admin.exports import LEFT_OUT, OpenExport, open_export
from billing.core.settings import Settings
from billing.receipts.files import whole_binary_file
from billing.receipts.wording import iso

#: The list of what is in the zip, and what is not.
CONTENTS: Final = "contents.json"
#: Lines between two words on how far it is.
_TOLD: Final = 1_000


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """A written export: where it is, and how many rows of each file it has."""

    path: Path
    rows: Mapping[str, int]


def write_export(
    settings: Settings, client_id: str, path: str | os.PathLike[str], *, tell: Callable[[int], None] | None = None
) -> Export:
    """Write all of a client's data; `tell` is told how many rows there are so far.

    Raises `UnknownClient`, `Unreachable`, and `InvalidValue` for a place that cannot be written.
    """
    place = Path(path)
    with (
        open_export(settings, client_id) as opened,
        whole_binary_file(place) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made,
    ):
        rows = _write(opened, made, tell or (lambda _: None))
    return Export(path=place, rows=rows)


def _write(opened: OpenExport, made: zipfile.ZipFile, tell: Callable[[int], None]) -> dict[str, int]:
    counts: dict[str, int] = {}
    listed: list[dict[str, Any]] = []
    for part in opened.parts:
        name, count = f"{part.name}.jsonl", 0
        with made.open(_entry(name, opened.read_at), "w", force_zip64=True) as file:
            for row in part.rows:
                file.write(row.encode() + b"\n")
                count += 1
                if count % _TOLD == 0:
                    tell(sum(counts.values()) + count)
        counts[name] = count
        listed.append({"file": name, "rows": count, "what": part.what})
    contents = {
        "client_id": opened.client_id,
        "read_at": iso(opened.read_at),
        "files": listed,
        "not_in_it": {
            **LEFT_OUT,
            "Redis": "balances and holds of the moment; a balance is made of grants, ledger and usage, which are here",
        },
    }
    made.writestr(_entry(CONTENTS, opened.read_at), json.dumps(contents, indent=2, ensure_ascii=False) + "\n")
    return counts


def _entry(name: str, at: datetime) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, at.timetuple()[:6])
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o600 << 16
    return entry
