"""Writes `billing.json`, the dashboard for Grafana, from `panels.py`.

Run it after a change: python -m deploy.grafana.dashboard.

Provisioned, it has a fixed uid and no ids of a particular server; its data source is chosen in a variable.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from deploy.grafana.panels import ROWS, Panel

FILE: Final = Path(__file__).with_name("billing.json")
_COLUMNS: Final = 24
_HEIGHTS: Final = {"stat": 4, "timeseries": 8}
_SOURCE: Final = {"type": "prometheus", "uid": "${source}"}


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    return {
        "uid": "celery-billing",
        "title": "Billing of a Celery fleet",
        "description": "What is admitted, charged, written and reported; red is what an alert is about.",
        "tags": ["billing", "celery"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "10s",
        "timezone": "utc",
        "time": {"from": "now-1h", "to": "now"},
        "annotations": {"list": [_alerts()]},
        "templating": {"list": [{"name": "source", "label": "Source", "type": "datasource", "query": "prometheus"}]},
        "panels": [{**panel, "id": number} for number, panel in enumerate(_panels(), 1)],
    }


def _alerts() -> dict[str, Any]:
    """Return the marks of firing alerts on every panel."""
    query = 'ALERTS{alertstate="firing",alertname=~"Billing.+"}'
    return {
        "name": "Alerts",
        "datasource": _SOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": query,
        "titleFormat": "{{alertname}}",
    }


def _panels() -> Iterator[dict[str, Any]]:
    """Lay the panels out from left to right, row by row."""
    top = 0
    for title, panels in ROWS.items():
        yield {"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": _place(0, top, _COLUMNS, 1)}
        top += 1
        left = height = 0
        for panel in panels:
            if left + panel.width > _COLUMNS:
                top, left, height = top + height, 0, 0
            yield _panel(panel, _place(left, top, panel.width, _HEIGHTS[panel.kind]))
            left, height = left + panel.width, max(height, _HEIGHTS[panel.kind])
        top += height


def _panel(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "thresholds": _thresholds(panel)}
    if panel.words:
        defaults["mappings"] = [{"type": "value", "options": {f"{at:g}": {"text": word} for at, word in panel.words}}]
    if panel.kind == "timeseries":
        defaults["min"] = 0
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": _SOURCE, "expr": query.expr, "legendFormat": query.legend}
            for number, query in enumerate(panel.queries)
        ],
    }


def _thresholds(panel: Panel) -> dict[str, Any]:
    """Colour a value: words from red to green, numbers from green to red, where there is a red at all."""
    first, second = ("red", "green") if panel.words else ("green", "red")
    at = 1 if panel.words else panel.red
    steps = [{"color": first, "value": None}, *([] if at is None else [{"color": second, "value": at}])]
    return {"mode": "absolute", "steps": steps}


def _place(left: int, top: int, width: int, height: int) -> dict[str, int]:
    return {"x": left, "y": top, "w": width, "h": height}


def text() -> str:
    """Return the file's content."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
