"""A real Prometheus with the rules of `deploy/`, on loopback, with data of its own; it ends with the block.

It scrapes the targets that a test names, under the jobs of `deploy/prometheus/prometheus.yml`, as often as that says.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from billing.embedded.process import Child
from billing.embedded.server import LOOPBACK, free_port
from tests.conftest import missing
from tests.deploy.files import CONFIGURATION, RULES, read
from tests.waiting import wait_until

#: How long a query may take.
_QUERY_SECONDS: Final = 30.0


class Prometheus:
    """Asks the running server over its HTTP interface, as Grafana does."""

    def __init__(self, url: str) -> None:
        self.url = url
        # No certificates: reading them would take longer than the query.
        self._client = httpx.Client(base_url=url, timeout=_QUERY_SECONDS, trust_env=False, verify=False)  # noqa: S501 - plain HTTP

    def ready(self) -> bool:
        """Whether it answers queries."""
        try:
            return self._client.get("/-/ready").is_success
        except httpx.TransportError:
            return False

    def query(self, expression: str) -> dict[tuple[tuple[str, str], ...], float]:
        """Return the value of each series now, by its labels without the name."""
        found = self._ask("/api/v1/query", {"query": expression})["result"]
        return {
            tuple(sorted((name, value) for name, value in each["metric"].items() if name != "__name__")): float(
                each["value"][1]
            )
            for each in found
        }

    def value(self, expression: str) -> float | None:
        """Return the value of a query that has one series; None: it has none."""
        found = self.query(expression)
        assert len(found) < 2, found
        return next(iter(found.values()), None)

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        alerts = self._ask("/api/v1/alerts", {})["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def health(self) -> dict[str, set[str]]:
        """Return how the targets of each job are: `up`, `down`, `unknown`."""
        found: dict[str, set[str]] = {}
        for target in self._ask("/api/v1/targets", {"state": "active"})["activeTargets"]:
            found.setdefault(target["labels"]["job"], set()).add(target["health"])
        return found

    def types(self, job: str) -> dict[str, str]:
        """Return the type of each metric that the targets of a job serve, by its name in the scrape's header."""
        match = f'{{job="{job}"}}'
        return {each["metric"]: each["type"] for each in self._ask("/api/v1/targets/metadata", {"match_target": match})}

    def names(self) -> set[str]:
        """Return the names of all series."""
        return set(self._ask("/api/v1/label/__name__/values", {}))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(self, path: str, parameters: Mapping[str, str]) -> Any:
        answer = self._client.get(path, params=dict(parameters)).json()
        assert answer["status"] == "success", answer
        return answer["data"]


@contextmanager
def prometheus(targets: Mapping[str, Sequence[str]], directory: Path) -> Iterator[Prometheus]:
    """Run Prometheus on targets: job → `host:port`. Skips where it is not installed, or fails under CI=true."""
    program = shutil.which("prometheus") or missing("prometheus is not installed")
    configuration = read(CONFIGURATION)
    assert set(targets) <= {job["job_name"] for job in configuration["scrape_configs"]}
    configuration["rule_files"] = [str(RULES)]
    configuration["scrape_configs"] = [
        {"job_name": job, "static_configs": [{"targets": list(addresses)}]} for job, addresses in targets.items()
    ]
    directory.mkdir(parents=True)
    path = directory / "prometheus.yml"
    path.write_text(yaml.safe_dump(configuration), encoding="utf-8")
    address = f"{LOOPBACK}:{free_port()}"
    child = Child.spawn(
        "prometheus",
        [program, f"--config.file={path}", f"--storage.tsdb.path={directory / 'data'}",
         f"--web.listen-address={address}", "--log.level=warn"],
        environ={**os.environ, "GOMAXPROCS": "1"},
        cwd=directory,
        log=directory / "prometheus.log",
    )  # fmt: skip
    asking = Prometheus(f"http://{address}")
    try:
        wait_until(asking.ready, f"Prometheus is ready: {child.last_lines()}")
        yield asking
    finally:
        asking.close()
        child.stop()
