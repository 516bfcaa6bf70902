"""Metadata and other fields that a caller sets and changes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def updated(details: Mapping[str, Any], params: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return details with what a call changes: an empty text unsets a field, or a key of the metadata; {} all keys."""
    changed = {name: params[name] or None for name in names if name in params}
    kept = {**details, **changed}
    if (given := params.get("metadata")) is not None:
        merged = {**details.get("metadata", {}), **given} if given else {}
        kept["metadata"] = {key: value for key, value in merged.items() if value != ""}
    return kept
