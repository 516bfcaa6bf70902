"""The YAML of `deploy/kubernetes.md` is YAML, names settings that exist, and keeps the rules that the page states."""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

import celeryconfig
from billing.core.settings import FIELDS
from tests.deploy.files import DEPLOY
from tests.deploy.queries import JOBS

PAGE: Final = (DEPLOY / "kubernetes.md").read_text(encoding="utf-8")


def objects() -> dict[tuple[str, str], dict[str, Any]]:
    """Return every object of the page, by kind and name."""
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    found = [made for block in blocks for made in yaml.safe_load_all(block)]
    return {(made["kind"], made["metadata"]["name"]): made for made in found}


def pods() -> dict[str, dict[str, Any]]:
    """Return what each Deployment and Job runs."""
    return {
        name: made["spec"]["template"]["spec"]
        for (kind, name), made in objects().items()
        if kind in {"Deployment", "Job"}
    }


def test_each_block_is_an_object_of_a_version_and_a_kind() -> None:
    found = objects()
    assert len(found) == 7
    assert all({"apiVersion", "kind", "metadata", "spec"} <= set(made) for made in found.values())
    for (kind, name), made in found.items():
        if kind == "Deployment":
            spec = made["spec"]
            labels = spec["template"]["metadata"]["labels"]
            assert spec["selector"]["matchLabels"].items() <= labels.items(), name


def test_each_variable_is_a_setting_and_none_holds_a_secret() -> None:
    for pod in pods().values():
        for container in pod["containers"]:
            for variable in container.get("env", ()):
                name = variable["name"]
                setting = name.removeprefix("BILLING_").removesuffix("_FILE").lower()
                assert name == "REMAP_SIGTERM" or setting in FIELDS, name
                assert name.endswith("_FILE") or name == "REMAP_SIGTERM" or FIELDS[setting].repr, name


def test_a_worker_of_tasks_signs_and_has_no_keys_that_verify() -> None:
    """Whoever verifies could sign as everybody: the keys are symmetric."""
    secrets = {}
    for name in ("billing-worker", "billing-fulfillment"):
        (container,) = pods()[name]["containers"]
        files = {one["name"]: one["value"] for one in container["env"] if one["name"].endswith("_FILE")}
        assert files["BILLING_SIGNING_KEY_FILE"] == "/run/secrets/signing/signing_key"
        assert ("BILLING_VERIFYING_KEYS_FILE" in files) == (name == "billing-fulfillment")
        assert "/run/secrets/signing" in {mount["mountPath"] for mount in container["volumeMounts"]}
        (secrets[name],) = (one["secret"]["secretName"] for one in pods()[name]["volumes"] if one["name"] == "signing")
    assert len(set(secrets.values())) == 2


def test_a_worker_stops_softly_within_its_grace_and_there_is_one_beat() -> None:
    worker = pods()["billing-worker"]
    assert {"name": "REMAP_SIGTERM", "value": "SIGQUIT"} in worker["containers"][0]["env"]
    assert worker["terminationGracePeriodSeconds"] >= celeryconfig.worker_soft_shutdown_timeout + 20
    assert f"celeryconfig.py: {celeryconfig.worker_soft_shutdown_timeout:g} s" in PAGE
    beat = objects()["Deployment", "billing-beat"]["spec"]
    assert (beat["replicas"], beat["strategy"]["type"]) == (1, "Recreate")


def test_a_standby_remains_when_a_node_is_drained() -> None:
    fulfillment = objects()["Deployment", "billing-fulfillment"]["spec"]
    budget = objects()["PodDisruptionBudget", "billing-fulfillment"]["spec"]
    assert fulfillment["replicas"] - budget["maxUnavailable"] >= 1
    assert budget["selector"] == fulfillment["selector"]
    assert "--fulfillment" in fulfillment["template"]["spec"]["containers"][0]["command"]


def test_probes_ask_the_port_that_serves_metrics() -> None:
    for name in ("billing-worker", "billing-fulfillment"):
        (container,) = pods()[name]["containers"]
        (port,) = container["ports"]
        assert {"name": "BILLING_METRICS_ADDRESS", "value": f"0.0.0.0:{port['containerPort']}"} in container["env"]
        assert container["livenessProbe"]["httpGet"] == {"path": "/metrics", "port": port["name"]}
        assert "readinessProbe" not in container


def test_the_jobs_are_those_of_the_rules() -> None:
    (match,) = objects()["PodMonitor", "billing"]["spec"]["selector"]["matchExpressions"]
    assert set(match["values"]) == set(JOBS.values())
