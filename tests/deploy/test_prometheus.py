"""The rules of `deploy/prometheus`: promtool reads them, and plays each fault against them."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from billing.cli.main import billing as command_line
from billing.core.settings import FIELDS
from billing.observability.metrics.catalogue import CATALOGUE
from tests.deploy.faults import FAULTS
from tests.deploy.files import CONFIGURATION, DEPLOY, RULES, read, rules
from tests.deploy.promtool import Fault, check, run
from tests.deploy.queries import JOBS

#: What must show within a minute of its beginning. promtool plays at 10 s a step: half as often as Prometheus looks.
AT_ONCE = (
    "Redis is down",
    "PostgreSQL is down",
    "the broker is down",
    "Stripe is down",
    "the outbox is old",
    "the consumer is silent",
    "a queue has no consumer",
    "a law is violated",
)


def test_promtool_takes_the_rules_and_the_configuration() -> None:
    assert check("rules", RULES) == ""
    assert check("config", CONFIGURATION) == ""


def test_each_alert_fires_on_its_own_fault_alone_and_clears_again(tmp_path: Path) -> None:
    """For each fault: none fires before it, exactly its own do in time, and none after it has ended."""
    assert run(FAULTS, tmp_path) == ""


def test_promtool_says_so_when_an_alert_does_not_fire_or_another_one_does(tmp_path: Path) -> None:
    """The check itself can fail."""
    redis = FAULTS["Redis is down"]
    nothing = Fault(series={}, fires=redis.fires)
    other = Fault(series=redis.series, fires=frozenset({"BillingBrokerDown"}))
    for fault in (nothing, other):
        assert "FAILED" in run({"wrong": fault}, tmp_path)


def test_every_alert_has_a_fault_that_it_fires_on() -> None:
    alerts = {rule.name for rule in rules() if rule.alerts}
    assert alerts == {alert for fault in FAULTS.values() for alert in fault.fires}


@pytest.mark.parametrize("name", AT_ONCE)
def test_what_must_be_seen_within_a_minute_fires_half_a_minute_after_the_scrape_says_it(name: str) -> None:
    assert FAULTS[name].within <= 30
    for key in ("scrape_interval", "evaluation_interval"):
        assert read(CONFIGURATION)["global"][key] == "5s"


def test_the_jobs_are_those_that_the_rules_count_on() -> None:
    assert {job["job_name"] for job in read(CONFIGURATION)["scrape_configs"]} == set(JOBS.values())


def test_the_page_names_alerts_and_files_that_exist() -> None:
    page = (DEPLOY / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(Billing\w+)`", page))
    assert len(named) > 20
    assert named <= {rule.name for rule in rules()}
    assert all((DEPLOY / path).exists() for path in re.findall(r"\]\(([^)]+)\)", page))


def test_each_alert_says_what_is_wrong_and_what_to_do_in_commands_and_settings_that_exist() -> None:
    """Advice that cannot be followed is none: each `billing …` is a command, each `billing_…` a setting."""
    names = {metric.name for metric in CATALOGUE}
    for rule in rules():
        if not rule.alerts:
            continue
        assert set(rule.annotations) == {"summary", "description"}, rule.name
        assert rule.labels["severity"] in {"page", "ticket", "info"}, rule.name
        text = " ".join(rule.annotations.values())
        for setting in re.findall(r"\bbilling_(\w+)", text):
            assert setting in FIELDS and f"billing_{setting}" not in names, (rule.name, setting)  # noqa: PT018
        for command in re.findall(r"\bbilling ((?:[a-z-]+ ?)+)", text):
            assert _exists(command.split()), (rule.name, command)


def _exists(words: list[str]) -> bool:
    """Whether a command begins like this; further words may be prose."""
    context = click.Context(command_line)
    command = command_line.get_command(context, words[0])
    if isinstance(command, click.Group) and not command.invoke_without_command:
        return len(words) > 1 and command.get_command(context, words[1]) is not None
    return command is not None
