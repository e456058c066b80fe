"""The chart's alert rules and dashboard, checked with promtool and with metrics of a running operator."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import BACKUP_SCHEDULE, BACKUP_STORE, NAMESPACE, PVC, VOLUME_BACKUP, VOLUME_RESTORE
from cinderblock.observability.alert import DAY, DELAYS, Alert, AlertLimits
from cinderblock.observability.alerts import true_alerts
from cinderblock.observability.cluster_state import ClusterState
from cinderblock.observability.exposition import MetricsSnapshot, families
from cinderblock.observability.notifications import AlertState, NotificationTracker
from tests.cluster import choices, debian
from tests.support.alarms.states import random_state
from tests.support.cluster.chart import METRICS, of_kind, render
from tests.support.cluster.metrics import Samples, samples

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "data" / "alerts.yaml"
DAYS = 5
"""Age of the states in which Prometheus and the webhook are compared. The longest delay of an alert is three days."""
LIMITS = AlertLimits(verification_age=DAY, requires_verification=True, drill_age=DAY)
"""Those of the chart that this module renders."""
METRIC = re.compile(r"\b(?:cinderblock|process)_[a-z_]+")
SELECTOR = re.compile(r"\b((?:cinderblock|process)_[a-z_]+)\{([^}]*)\}")
GROUPED = re.compile(r"by \(([^)]*)\) \((?:(?:rate|increase)\()?((?:cinderblock|process)_[a-z_]+)")


def promtool(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    debian.ensure(for_tests=True)
    return subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def rules() -> dict[str, Any]:
    [found] = of_kind(render(*METRICS), "PrometheusRule")
    spec: dict[str, Any] = found["spec"]
    return spec


@pytest.fixture(scope="module")
def queries() -> list[str]:
    """Return all queries of the dashboard as Grafana sends them."""
    [found] = [
        item for item in of_kind(render(*METRICS), "ConfigMap") if item["metadata"]["name"].endswith("dashboard")
    ]
    panels = json.loads(found["data"]["cinderblock.json"])["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def _alerts(rules: dict[str, Any]) -> list[dict[str, Any]]:
    return [rule for group in rules["groups"] for rule in group["rules"]]


def test_rules_are_valid(rules: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    checked = promtool("check", "rules", "rules.yaml", folder=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "SUCCESS" in checked.stdout


def test_dashboard_queries_are_valid(queries: list[str], tmp_path: Path) -> None:
    records = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "queries.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": records}]}))
    checked = promtool("check", "rules", "queries.yaml", folder=tmp_path)
    assert len(queries) > 20
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_alerts_fire_and_end_as_their_cases_say(rules: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    shutil.copy(CASES, tmp_path)
    tested = promtool("test", "rules", CASES.name, folder=tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_has_cases_for_firing_and_ending(rules: dict[str, Any]) -> None:
    cases = yaml.safe_load(CASES.read_text())["tests"]
    seen = [(test["alertname"], bool(test["exp_alerts"])) for case in cases for test in case["alert_rule_test"]]
    ends = {
        name
        for case in cases
        for earlier, later in pairwise(case["alert_rule_test"])
        for name in [later["alertname"]]
        if earlier["alertname"] == name and earlier["exp_alerts"] and not later["exp_alerts"]
    }
    names = {alert["alert"] for alert in _alerts(rules)}
    assert {name for name, fires in seen if fires} == names
    assert ends == names


def test_every_alert_has_a_runbook() -> None:
    page = (ROOT / "docs" / "guide" / "observability.md").read_text()
    url = "https://docs.example.com/observability.md"
    [found] = of_kind(render(*METRICS, f"metrics.rules.runbookUrl={url}"), "PrometheusRule")
    for alert in _alerts(found["spec"]):
        assert alert["annotations"]["runbook_url"] == f"{url}#{alert['alert'].lower()}"
        assert f"### {alert['alert']}\n" in page


def test_webhook_has_delays_and_severities_of_the_rules(rules: dict[str, Any]) -> None:
    found = {alert["alert"]: alert for alert in _alerts(rules)}
    for name, delay in DELAYS.items():
        assert _seconds(found[name].get("for", "0m")) == delay, name
    for alert in true_alerts(random_state(1, DAYS), DAYS * 86400.0):
        assert found[alert.name]["labels"]["severity"] == alert.severity


NOT_TOLD = {
    # They are about the operator itself. One that does not act, or cannot read the cluster, tells nothing at all.
    *("CinderblockNoLeader", "CinderblockTwoLeaders", "CinderblockWatchDead", "CinderblockFiguresStale"),
    *("CinderblockQueueLong", "CinderblockReconcileErrors", "CinderblockApiServerErrors", "CinderblockRefused"),
    # The webhook cannot report its own failure.
    "CinderblockWebhookFailing",
    # They compare counts over time, which no object has. CinderblockStoreNotReady reports stores that do not answer.
    "CinderblockStoreErrors",
    # They count waits of the whole cluster. Events and conditions of the objects tell what each one waits for.
    *("CinderblockOperationOverdue", "CinderblockDeletionFailing", "CinderblockMoversQueued"),
}
"""Alerts of which the webhook does not tell, and why."""


def test_webhook_tells_of_every_alert_about_backups(rules: dict[str, Any]) -> None:
    assert {alert["alert"] for alert in _alerts(rules)} == set(DELAYS) | NOT_TOLD
    assert NOT_TOLD.isdisjoint(DELAYS)


def test_webhook_tells_what_the_rules_say(rules: dict[str, Any], tmp_path: Path) -> None:
    """Prometheus is the oracle: twelve random states make the same alerts fire there and here."""
    groups = [
        {
            "name": group["name"],
            "rules": [rule | {"annotations": {}} for rule in group["rules"] if rule["alert"] in DELAYS],
        }
        for group in rules["groups"]
    ]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [group for group in groups if group["rules"]]}))
    states = [random_state(seed, DAYS) for seed in range(12)]
    fired = [_told(state) for state in states]
    cases = [
        {
            "interval": "1h",
            "input_series": [
                {"series": series, "values": f"{value}+0x{DAYS * 24}"} for series, value in _series(state)
            ],
            "alert_rule_test": [
                {
                    "eval_time": f"{DAYS}d",
                    "alertname": str(name),
                    "exp_alerts": [{"exp_labels": labels} for fired_name, labels in told if fired_name == name],
                }
                for name in DELAYS
            ],
        }
        for state, told in zip(states, fired, strict=True)
    ]
    tests = {"rule_files": ["rules.yaml"], "evaluation_interval": "1h", "tests": cases}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(tests))
    checked = promtool("test", "rules", "tests.yaml", folder=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert {name for told in fired for name, _ in told} == set(DELAYS)


def _series(state: ClusterState) -> Iterator[tuple[str, float]]:
    for family in families(MetricsSnapshot(version="1", now=DAYS * 86400.0, state=state)):
        for sample in family.samples:
            labels = ",".join(f'{key}="{value}"' for key, value in sample.labels.items())
            yield f"{sample.name}{{{labels}}}", float(sample.value)


def _told(state: ClusterState) -> list[tuple[str, dict[str, str]]]:
    """Return the alerts of which the webhook tells, with the labels of the rules."""
    tracker, now = NotificationTracker(), DAYS * DAY
    tracker.update(true_alerts(state, 0.0, LIMITS), 0.0)
    due = tracker.update(true_alerts(state, now, LIMITS), now)
    return [(found.alert.name, _labels_of(found.alert)) for found in due if found.state is AlertState.FIRING]


def _labels_of(alert: Alert) -> dict[str, str]:
    namespace, name = alert.subject.namespace, alert.subject.name
    found = {
        "PersistentVolumeClaim": {"volume_namespace": namespace, "volume": name},
        "Namespace": {"volume_namespace": name},
        "BackupStore": {"store_namespace": namespace, "store": name},
        "VolumeRestore": {},
        "BackupVerification": {},
    }.get(alert.subject.kind, {"schedule_namespace": namespace, "schedule": name})
    return {key: value for key, value in found.items() if value} | {"severity": str(alert.severity)}


def _seconds(duration: str) -> float:
    return float(duration[:-1]) * {"m": 60, "h": 3600, "d": 86400}[duration[-1]]


@pytest.fixture
def operator(kubeconfig: Path, tmp_path: Path) -> Iterator[str]:
    """Run the operator as an administrator, and return the URL of its metrics.

    Its log goes to a file: what earlier tests have left on the server may give more lines than a pipe holds.
    """
    health, port = choices.free_ports(2)
    settings = {
        "KUBECONFIG": str(kubeconfig),
        "CINDERBLOCK_MOVER_IMAGE": "example/cinderblock:1",
        "CINDERBLOCK_HEALTH_PORT": str(health),
        "CINDERBLOCK_METRICS_PORT": str(port),
        "CINDERBLOCK_LEASE_NAME": f"metrics-{os.getpid()}",
    }
    with (
        (tmp_path / "operator.log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-c", "from cinderblock.cli.main import main; raise SystemExit(main())", "operator"],
            env=os.environ | settings | {"PYTHONPATH": str(ROOT / "operator")},
            stderr=log,
        ) as process,
    ):
        yield f"http://127.0.0.1:{port}/metrics"
        process.send_signal(signal.SIGTERM)


def _scrape(url: str) -> Samples:
    try:
        with urllib.request.urlopen(url, timeout=10) as page:
            return samples(page.read().decode())
    except OSError:
        return Samples({})


async def _scrape_until(url: str, *names: str) -> Samples:
    deadline = time.monotonic() + 60
    while True:
        said = await asyncio.to_thread(_scrape, url)
        missing = set(names) - said.names()
        if not missing:
            return said
        assert time.monotonic() < deadline, f"never told: {missing}"
        await asyncio.sleep(0.5)


async def _something_of_everything(client: KubeClient, namespace: str) -> None:
    """Create a volume with complete, failed and incomplete backups, a failed restore, a schedule and a silent store."""
    await client.create(
        kinds.SECRET,
        {
            "metadata": {"name": "s3", "namespace": namespace},
            "stringData": {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"},
        },
    )
    # Something answers there, with a certificate that nobody vouches for: a refusal at once.
    endpoint = (await client.config()).server
    store = {"endpointUrl": endpoint, "credentialsSecretRef": {"name": "s3"}}
    store |= {"import": {"mode": "Always"}, "copies": [{"storeName": "absent"}]}
    await client.create(BACKUP_STORE, {"metadata": {"name": "default", "namespace": namespace}, "spec": store})
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeName": "pv-data"}
    metadata = {"name": "data", "namespace": namespace, "labels": {"app": "data"}}
    made = await client.create(PVC, {"metadata": metadata, "spec": claim})
    await client.merge_patch(PVC, "data", namespace, {"status": {"phase": "Bound"}}, subresource="status")
    for name in ("good", "bad", "incomplete"):
        spec = {"volumeId": "data", "storeName": "absent" if name == "bad" else "default"}
        backup = await client.create(VOLUME_BACKUP, {"metadata": {"name": name, "namespace": namespace}, "spec": spec})
        if name != "bad":
            uid = backup["metadata"]["uid"]
            status = {"phase": "available", "id": uid, "volumeId": made["metadata"]["uid"], "storeName": "default"}
            status |= {"dataTimestamp": "2026-01-02T03:04:05Z", "storedBytes": 7, "manifestKey": "backups/a/b.manifest"}
            status |= {"unreadableFiles": 1, "unreadableExamples": ["broken"]} if name == "incomplete" else {}
            found = {"recordedFor": uid, "result": "Verified", "lastVerifiedAt": "2026-01-02T03:04:05Z"}
            found |= {"structureAt": "2026-01-02T03:04:05Z"}
            alarm = {"type": "Suspicious", "status": "True", "reason": "Shrunk", "message": "a test"}
            alarm |= {"lastTransitionTime": "2026-01-02T03:04:05Z"}
            status |= {"verification": found, "conditions": [alarm]} if name == "good" else {}
            await client.merge_patch(VOLUME_BACKUP, name, namespace, {"status": status}, subresource="status")
    schedule = {"schedule": "@yearly", "volumes": {"selector": {"matchLabels": {"app": "absent"}}}}
    schedule["verification"] = {"structure": {"schedule": "@yearly"}}
    metadata = {"name": "yearly", "namespace": namespace}
    await client.create(BACKUP_SCHEDULE, {"metadata": metadata, "spec": schedule})
    status = {"lastCompletedTime": "2026-01-02T03:04:05Z", "retention": {"frozen": 1}}
    await client.merge_patch(BACKUP_SCHEDULE, "yearly", namespace, {"status": status}, subresource="status")
    drills = {"schedule": "@yearly", "volumes": {"selector": {"matchLabels": {"app": "data"}}}}
    drills["verification"] = {"restore": {"schedule": "@yearly"}}
    await client.create(BACKUP_SCHEDULE, {"metadata": {"name": "drills", "namespace": namespace}, "spec": drills})
    spec = {"backupId": "absent", "name": "copy"}
    await client.create(VOLUME_RESTORE, {"metadata": {"name": "failed", "namespace": namespace}, "spec": spec})


async def _failed(client: KubeClient, namespace: str) -> bool:
    """Return whether the query has a result. The operator caches its reading of the cluster for a while."""
    bad = await client.get(VOLUME_BACKUP, "bad", namespace)
    failed = await client.get(VOLUME_RESTORE, "failed", namespace)
    return all(item and item.get("status", {}).get("failReason") for item in (bad, failed))


async def test_operator_exposes_all_metrics_of_rules_and_dashboard(
    client: KubeClient, rules: dict[str, Any], queries: list[str], operator: str
) -> None:
    namespace = f"metrics-{os.getpid()}"
    await client.create(NAMESPACE, {"metadata": {"name": namespace}})
    await _something_of_everything(client, namespace)
    deadline = time.monotonic() + 60
    while not await _failed(client, namespace):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)
    texts = [*(alert["expr"] for alert in _alerts(rules)), *queries]
    wanted = {name for text in texts for name in METRIC.findall(text)}
    assert len(wanted) > 20
    said = await _scrape_until(operator, *wanted)
    for text in texts:
        for name, selector in SELECTOR.findall(text):
            used = {part.split("=")[0].rstrip("!~") for part in selector.split(",")}
            assert used <= said.labels(name), f"{name} has no such label: {text}"
        for labels, name in GROUPED.findall(text):
            used = {part.strip() for part in labels.split(",")}
            assert used <= said.labels(name), f"{name} has no such label: {text}"
    volume = {"volume_namespace": namespace, "volume": "data"}
    assert said.value("volume_last_success_timestamp_seconds", **volume) == 1767323045


def test_documented_metrics_are_the_existing_ones(rules: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "guide" / "observability.md").read_text()
    table = set(re.findall(r"^\| `(cinderblock_[a-z_]+)`", page, re.MULTILINE))
    source = "".join(file.read_text() for file in (ROOT / "operator/cinderblock/observability").glob("*.py"))
    counters = set(re.findall(r'Counter(?:MetricFamily)?\(\s*"(cinderblock_[a-z_]+)"', source))
    named = set(re.findall(r'"(cinderblock_[a-z_]+)"', source))
    assert table == (named - counters) | {f"{name}_total" for name in counters}
