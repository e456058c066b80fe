"""The broker in the chart."""

from __future__ import annotations

from typing import Any

import pytest

from cinderblock.cli.commands import run_broker
from cinderblock.cli.main import load, make_command_parser
from tests.support.cluster.chart import BROKER, NAMESPACE, Objects, of_kind, render

pytestmark = pytest.mark.integration


def _broker(objects: Objects, kind: str) -> dict[str, Any]:
    [found] = [item for item in of_kind(objects, kind) if item["metadata"]["name"].endswith("-broker")]
    return found


def _settings(objects: Objects) -> Any:
    [container] = _broker(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    name, *arguments = container["args"]
    return run_broker.settings_from(make_command_parser(name, load(name)).parse_args(arguments))


def test_broker_is_disabled_by_default() -> None:
    assert not [item for item in render() if "broker" in item["metadata"]["name"]]


def test_its_arguments_are_those_of_the_command() -> None:
    objects = render(*BROKER, "broker.requestsPerNamespace=3")
    settings = _settings(objects)
    [container] = _broker(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {
        "api": settings.port,
        "health": settings.health_port,
    }
    assert settings.host_names[0] == f"cinderblock-broker.{NAMESPACE}.svc"
    assert settings.makes_certificate
    assert settings.tls_secret == "cinderblock-broker-tls"
    assert settings.requests_per_namespace == 3


def test_it_reads_objects_everywhere_and_secrets_only_in_its_namespace() -> None:
    objects = render(*BROKER)
    rights = {
        (resource, verb)
        for rule in _broker(objects, "ClusterRole")["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    read = ("pods", "namespaces", "volumebackups", "volumerestores", "backupverifications", "backupstores")
    assert rights == {("tokenreviews", "create"), ("clusterbackupstores", "get"), *((name, "get") for name in read)}
    rules = _broker(objects, "Role")["rules"]
    assert [(rule["resources"], rule["verbs"], rule.get("resourceNames")) for rule in rules] == [
        (["secrets"], ["get"], None),
        (["secrets"], ["update"], ["cinderblock-broker-tls"]),
        (["serviceaccounts/token"], ["create"], ["cinderblock-broker"]),
    ]


def test_broker_may_create_no_secret_and_finds_an_empty_one() -> None:
    """A Secret of type kubernetes.io/service-account-token would hold the rights of the operator."""
    objects = render(*BROKER)
    rules = [rule for role in of_kind(objects, "Role") + of_kind(objects, "ClusterRole") for rule in role["rules"]
             if role["metadata"]["name"].endswith("-broker") and "secrets" in rule["resources"]]  # fmt: skip
    assert {verb for rule in rules for verb in rule["verbs"]} == {"get", "update"}
    [secret] = [item for item in of_kind(objects, "Secret") if item["metadata"]["name"] == "cinderblock-broker-tls"]
    assert not {"data", "stringData", "type"} & secret.keys()
    assert not [
        item
        for item in of_kind(render(*BROKER, "broker.tls.secretName=mine"), "Secret")
        if item["metadata"]["name"] in ("mine", "cinderblock-broker-tls")
    ]


def test_given_certificate_needs_no_right_to_write() -> None:
    objects = render(*BROKER, "broker.tls.secretName=mine")
    verbs = {
        verb for rule in _broker(objects, "Role")["rules"] if "secrets" in rule["resources"] for verb in rule["verbs"]
    }
    assert verbs == {"get"}
    settings = _settings(objects)
    assert (settings.tls_secret, settings.makes_certificate) == ("mine", False)


@pytest.mark.parametrize(("replicas", "budgets"), [(0, 0), (1, 0), (2, 1), (3, 1)])
def test_budget_protects_more_than_one_replica(replicas: int, budgets: int) -> None:
    objects = render(*BROKER, f"broker.replicas={replicas}")
    assert len(of_kind(objects, "PodDisruptionBudget")) == budgets
    assert _broker(objects, "Deployment")["spec"]["replicas"] == replicas


def test_broken_replicas_hold_up_no_drained_node() -> None:
    budgets = of_kind(render(*BROKER, "operator.replicas=2"), "PodDisruptionBudget")
    assert [budget["spec"]["unhealthyPodEvictionPolicy"] for budget in budgets] == ["AlwaysAllow"] * 2


def test_slow_start_on_a_full_node_is_no_reason_to_kill() -> None:
    """Without a startup probe, a process that starts slowly is killed, and starts even more slowly."""
    for deployment in of_kind(render(*BROKER), "Deployment"):
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        startup, liveness = container["startupProbe"], container["livenessProbe"]
        assert startup["httpGet"] == liveness["httpGet"]
        assert startup["periodSeconds"] * startup["failureThreshold"] >= 120


def test_service_leads_to_its_pods() -> None:
    objects = render(*BROKER, "broker.service.port=9443")
    service = _broker(objects, "Service")
    labels = _broker(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert service["spec"]["ports"] == [{"name": "https", "port": 9443, "targetPort": "api"}]


def test_private_key_stays_in_memory() -> None:
    [volume] = _broker(render(*BROKER), "Deployment")["spec"]["template"]["spec"]["volumes"]
    assert volume["emptyDir"]["medium"] == "Memory"


def test_only_movers_and_the_operator_reach_it() -> None:
    policy = _broker(render(*BROKER, "networkPolicies.enabled=true"), "NetworkPolicy")
    [rule] = [rule for rule in policy["spec"]["ingress"] if rule["ports"] == [{"port": "api"}]]
    movers, operator = rule["from"]
    assert operator["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "operator"
    assert [movers] == [
        {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/managed-by": "cinderblock"}}}
    ]


def test_it_uses_the_proxies_of_the_chart() -> None:
    objects = render(*BROKER, "proxy.https=http://proxy.example.com:3128")
    [container] = _broker(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert {item["name"]: item["value"] for item in container["env"]} == {
        "HTTPS_PROXY": "http://proxy.example.com:3128",
        "NO_PROXY": ".svc,.cluster.local",
    }
