"""The files of `deploy/`, read."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
RULES: Final = DEPLOY / "prometheus" / "billing.rules.yml"
CONFIGURATION: Final = DEPLOY / "prometheus" / "prometheus.yml"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """A rule of Prometheus: it records `name`, or alerts under it."""

    name: str
    alerts: bool
    query: str
    labels: dict[str, str]
    annotations: dict[str, str]


def rules() -> list[Rule]:
    """Return every rule."""
    return [
        Rule(
            name=rule.get("alert") or rule["record"],
            alerts="alert" in rule,
            query=rule["expr"],
            labels=rule.get("labels", {}),
            annotations=rule.get("annotations", {}),
        )
        for group in read(RULES)["groups"]
        for rule in group["rules"]
    ]


def read(path: Path) -> Any:
    """Return a YAML file's content."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))
