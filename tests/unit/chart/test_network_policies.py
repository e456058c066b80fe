"""The chart's NetworkPolicies after rendering. No network of the tests enforces them."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from tests.support.cluster.chart import EVERYTHING, Objects, of_kind, render

pytestmark = pytest.mark.integration

ENABLED = "networkPolicies.enabled=true"


def _policies(*settings: str) -> dict[str, Any]:
    return {item["metadata"]["name"]: item["spec"] for item in of_kind(render(*settings), "NetworkPolicy")}


def _pods(objects: Objects) -> list[dict[str, Any]]:
    return [item["spec"]["template"] for item in objects if item["kind"] == "Deployment"]


def test_there_are_none_unless_asked_for() -> None:
    assert _policies(*EVERYTHING) == {}


def test_every_deployment_has_a_policy_with_its_ports() -> None:
    objects = render(*EVERYTHING, ENABLED)
    policies = [item["spec"] for item in of_kind(objects, "NetworkPolicy")]
    pods = _pods(objects)
    assert len(policies) == len(pods) == 4
    for pod in pods:
        labels = pod["metadata"]["labels"].items()
        [policy] = [p for p in policies if p["podSelector"]["matchLabels"].items() <= labels]
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        opened = {port["port"] for rule in policy["ingress"] for port in rule["ports"]}
        assert opened == {port["name"] for port in pod["spec"]["containers"][0]["ports"]}


def test_blocked_addresses_are_within_what_is_open() -> None:
    for name in ("cinderblock", "cinderblock-gateway", "cinderblock-broker"):
        [_, others] = _policies(*EVERYTHING, ENABLED)[name]["egress"]
        blocks = [peer["ipBlock"] for peer in others["to"] if "ipBlock" in peer]
        assert {block["cidr"]: block["except"] for block in blocks} == {
            "0.0.0.0/0": ["169.254.0.0/16"],
            "::/0": ["fe80::/10"],
        }
        for block in blocks:
            network = ipaddress.ip_network(block["cidr"])
            assert all(ipaddress.ip_network(cidr).version == network.version for cidr in block["except"])


def test_nothing_blocked_leaves_no_empty_list() -> None:
    [_, others] = _policies(ENABLED, "networkPolicies.blockedCidrs=null")["cinderblock"]["egress"]
    assert all("except" not in peer["ipBlock"] for peer in others["to"] if "ipBlock" in peer)


def test_only_named_peers_read_metrics_and_use_the_gateway() -> None:
    peer = "namespaceSelector.matchLabels.team=ops"
    settings = (f"networkPolicies.metricsFrom[0].{peer}", f"networkPolicies.gatewayFrom[0].{peer}")
    policies = _policies(*EVERYTHING, ENABLED, *settings)
    for name, port in (("cinderblock", "metrics"), ("cinderblock-gateway", "api")):
        [rule] = [rule for rule in policies[name]["ingress"] if rule["ports"] == [{"port": port}]]
        assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"team": "ops"}}}]


def test_embedded_store_answers_the_release_and_movers_of_its_namespaces() -> None:
    store = _policies(*EVERYTHING, ENABLED)["cinderblock-store"]
    [rule] = store["ingress"]
    release, movers = rule["from"]
    assert release["podSelector"]["matchExpressions"][1]["values"] == ["operator", "embedded-store-setup"]
    assert movers["namespaceSelector"]["matchExpressions"][0]["values"] == ["demo", "shop"]
    assert movers["podSelector"]["matchLabels"] == {"app.kubernetes.io/managed-by": "cinderblock"}
    assert store["egress"] == []
