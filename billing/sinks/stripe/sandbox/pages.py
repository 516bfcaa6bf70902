"""Stripe's lists: an envelope, and a page of it by the id of an object before or after. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from billing.sinks.stripe.sandbox import errors
from billing.sinks.stripe.sandbox.errors import Refusal
from billing.sinks.stripe.sandbox.params import page_limit


def page(objects: Sequence[dict[str, Any]], params: Mapping[str, Any], *, url: str) -> dict[str, Any]:
    """Return one page of `objects`, which are in the list's order."""
    limit = page_limit(params)
    after, before = params.get("starting_after"), params.get("ending_before")
    if after and before:
        raise Refusal(400, "You can only specify one of these parameters: starting_after, ending_before")
    if before:
        objects = objects[: _place(objects, before, "ending_before")]
        return _envelope(objects[-limit:], url, has_more=len(objects) > limit)
    if after:
        objects = objects[_place(objects, after, "starting_after") + 1 :]
    return _envelope(objects[:limit], url, has_more=len(objects) > limit)


def _place(objects: Sequence[dict[str, Any]], object_id: str, param: str) -> int:
    for place, one in enumerate(objects):
        if one["id"] == object_id:
            return place
    raise errors.no_such("object", object_id, param=param, status=400)


def _envelope(objects: Sequence[dict[str, Any]], url: str, *, has_more: bool) -> dict[str, Any]:
    return {"object": "list", "data": list(objects), "has_more": has_more, "url": url}
