"""The encoding of v1 requests: `a[b]=c` pairs, in a body or in a query, to nested dictionaries of text.

Guarantee: bounded in fields and depth; what is not of that form is refused, nothing is guessed.
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import parse_qsl

from billing.sinks.stripe.sandbox.errors import Refusal

FIELDS_MAX: Final = 500
DEPTH_MAX: Final = 5
_NAME: Final = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")


def decode(text: str) -> dict[str, Any]:
    """Return the fields of a request; a list (`expand[0]=…`, `expand[]=…`) becomes a dictionary by its indexes."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=FIELDS_MAX)
    except ValueError as error:
        raise Refusal(400, f"The request could not be decoded: {error}") from None
    fields: dict[str, Any] = {}
    for name, value in pairs:
        path = _path(name)
        place = fields
        for part in path[:-1]:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise Refusal(400, f"Invalid request: {name} is given both as text and as an object")
        if isinstance(place.get(path[-1]), dict):
            raise Refusal(400, f"Invalid request: {name} is given both as text and as an object")
        place[path[-1]] = value
    return fields


def _path(name: str) -> list[str]:
    match = _NAME.fullmatch(name)
    if match is None:
        raise Refusal(400, f"Invalid parameter name: {name[:100]}")
    path = [match[1], *re.findall(r"\[([^\[\]]*)\]", match[2])]
    if len(path) > DEPTH_MAX:
        raise Refusal(400, f"Invalid parameter name: {name[:100]}: is nested deeper than {DEPTH_MAX} levels")
    return path
