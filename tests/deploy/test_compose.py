"""`deploy/compose.yaml`, by the Compose specification's schema, and by reading it as `billing doctor` would.

There is no container engine in the tests: that the images start is not tested, nor `docker compose config`.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

import celeryconfig
from billing.connections import setting_files
from billing.core.settings import FIELDS, Settings, load
from tests.deploy.files import CONFIGURATION, DEPLOY, ROOT, read

COMPOSE: Final = DEPLOY / "compose.yaml"
SERVICES: Final[dict[str, Any]] = read(COMPOSE)["services"]
SECRETS: Final[dict[str, Any]] = read(COMPOSE)["secrets"]
#: Services that billing's own image runs.
OWN: Final = [name for name, service in SERVICES.items() if service["image"].startswith("celery-billing")]
LASTING: Final = [name for name in SERVICES if name != "migrate"]
#: Not settings: which app the commands are of.
OTHERS: Final = {"BILLING_APP"}


def judged(path: Path) -> str:
    """Return what the schema of the Compose specification has against a file."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout + done.stderr if done.returncode else ""


def test_the_compose_specification_has_nothing_against_it() -> None:
    assert judged(COMPOSE) == ""


def test_the_specification_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    """The check itself can fail."""
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(COMPOSE.read_text(encoding="utf-8").replace("healthcheck:", "healthchek:"), encoding="utf-8")
    assert "healthchek" in judged(wrong)


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_a_plain_name_with_a_whole_version(name: str) -> None:
    assert re.fullmatch(r"([a-z][a-z0-9-]*/)?[a-z][a-z0-9-]*:v?\d+\.\d+(\.\d+)?", SERVICES[name]["image"])


@pytest.mark.parametrize("name", OWN)
def test_each_variable_is_a_setting_and_what_holds_a_password_comes_from_a_secret_that_the_service_has(
    name: str,
) -> None:
    service = SERVICES[name]
    for variable, value in service.get("environment", {}).items():
        if not variable.startswith("BILLING_") or variable in OTHERS:
            continue
        setting = variable.removeprefix("BILLING_").removesuffix("_FILE").lower()
        assert setting in FIELDS, variable
        if variable.endswith("_FILE"):
            secret = value.removeprefix("/run/secrets/")
            assert secret in service["secrets"], variable
        else:
            assert FIELDS[setting].repr, f"{variable} may hold a password"


def test_every_secret_is_made_and_every_one_that_is_used_is_declared(secrets: Path) -> None:
    used = {
        each["source"] if isinstance(each, dict) else each
        for service in SERVICES.values()
        for each in service.get("secrets", ())
    }
    assert used == set(SECRETS)
    assert {Path(secret["file"]).name for secret in SECRETS.values()} <= {path.name for path in secrets.iterdir()}
    assert "deploy/secrets/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_secrets_that_are_there_stay_as_they_are(secrets: Path) -> None:
    """Given running servers, another run must not change a password behind their back."""
    before = {path.name: path.read_text() for path in secrets.iterdir()}
    subprocess.run([DEPLOY / "make-secrets", secrets], check=True, capture_output=True, timeout=60)
    assert {path.name: path.read_text() for path in secrets.iterdir()} == before
    assert secrets.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", [name for name in OWN if name != "migrate"])
def test_the_settings_of_a_process_name_the_services_each_apart_from_the_others(name: str, secrets: Path) -> None:
    """Billing's Redis is no broker and no result backend; nobody but `migrate` has the owner's login."""
    settings = settings_of(name, secrets)
    addresses = {
        "redis": settings.redis_url,
        "results": settings.result_url,
        "rabbitmq": settings.broker_url,
        "postgres": settings.database_url,
    }
    assert {service: urlsplit(url).hostname for service, url in addresses.items()} == {
        service: service for service in addresses
    }
    assert urlsplit(settings.database_url).username == "fleet"
    for url in addresses.values():
        assert len(urlsplit(url).password or "") >= 32


def test_who_publishes_usage_events_signs_them_with_a_key_of_its_own_that_the_consumer_takes(secrets: Path) -> None:
    settings = {name: settings_of(name, secrets) for name in OWN if name != "migrate"}
    senders = {name: found.signing_key for name, found in settings.items() if found.signing_key is not None}
    assert {name: key.sender for name, key in senders.items()} == {"worker": "workers", "fulfillment": "fulfillment"}
    assert set(settings["fulfillment"].verifying_keys) == set(senders.values())
    assert {name for name, found in settings.items() if found.verifying_keys} == {"fulfillment"}


@pytest.mark.parametrize("name", LASTING)
def test_what_lasts_is_restarted_bounded_and_asked_whether_it_lives(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    limits = service["deploy"]["resources"]["limits"]
    assert set(limits) == {"cpus", "memory", "pids"}
    assert service["logging"]["options"]["max-size"], "a log has a bound (L9)"
    # Beat answers nobody; its ticks are seen in the metrics.
    assert ("healthcheck" in service) == (name != "beat")


def test_whoever_is_waited_for_can_say_that_it_is_well() -> None:
    for service in SERVICES.values():
        for other, condition in service.get("depends_on", {}).items():
            wanted = condition["condition"]
            if wanted == "service_healthy":
                assert "healthcheck" in SERVICES[other], other
            else:
                assert (other, wanted) == ("migrate", "service_completed_successfully")


def test_only_flower_and_grafana_are_published_and_on_loopback() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {"flower": ["127.0.0.1:5555:5555"], "grafana": ["127.0.0.1:3000:3000"]}
    assert read(COMPOSE)["networks"]["inner"]["internal"] is True
    servers = ("redis", "results", "rabbitmq", "postgres", "prometheus")
    assert all(SERVICES[name]["networks"] == ["inner"] for name in servers)
    assert "flower_auth" in SERVICES["flower"]["secrets"]


def test_a_worker_is_given_longer_to_stop_than_celery_takes() -> None:
    """Soft shutdown: the tasks' time first, then what is unconfirmed is published, then SIGKILL."""
    worker = SERVICES["worker"]
    assert worker["environment"]["REMAP_SIGTERM"] == "SIGQUIT"
    assert _seconds(worker["stop_grace_period"]) >= celeryconfig.worker_soft_shutdown_timeout + 20
    assert "REMAP_SIGTERM" not in SERVICES["fulfillment"]["environment"], "its shutdown is warm: it commits its batch"
    assert _seconds(SERVICES["fulfillment"]["stop_grace_period"]) >= 30


def test_there_is_one_beat() -> None:
    beats = [name for name, service in SERVICES.items() if "beat" in service.get("command", ())]
    assert beats == ["beat"]
    assert "replicas" not in SERVICES["beat"]["deploy"]


def test_what_prometheus_scrapes_are_services_that_serve_metrics_there() -> None:
    for job in read(CONFIGURATION)["scrape_configs"]:
        for found in job.get("dns_sd_configs", ()):
            (name,) = found["names"]
            assert SERVICES[name]["environment"]["BILLING_METRICS_ADDRESS"] == f"0.0.0.0:{found['port']}"
        for found in job.get("static_configs", ()):
            (target,) = found["targets"]
            name, port = target.split(":")
            assert f"0.0.0.0:{port}" in SERVICES[name]["command"]


@pytest.mark.parametrize("name", OWN)
def test_the_command_of_a_service_has_options_that_exist(name: str) -> None:
    """An option that is not known is refused before help is shown."""
    command = SERVICES[name]["command"]
    if command[0] == "sh":
        command = shlex.split(command[-1].partition(" exec ")[2])
    module = {"celery": "celery", "billing": "billing.cli.main"}[command[0]]
    run = [sys.executable, "-m", module, *command[1:], "--help"]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    if command[0] == "celery" and "flower" not in command:
        wrong = [*run[:-1], "--no-such-option", "--help"]
        assert subprocess.run(wrong, cwd=ROOT, capture_output=True, check=False, timeout=120).returncode == 2


def settings_of(name: str, secrets: Path) -> Settings:
    """Return the settings of a service, as its process reads them."""
    environment = {
        variable: str(value).replace("/run/secrets", str(secrets))
        for variable, value in SERVICES[name]["environment"].items()
    }
    return load({}, environment | setting_files.read(environment, FIELDS))


def _seconds(text: str) -> int:
    found = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", text)
    assert found is not None, text
    return 60 * int(found[1] or 0) + int(found[2] or 0)
