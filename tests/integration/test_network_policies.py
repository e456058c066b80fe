"""The API server accepts the chart's NetworkPolicies."""

from __future__ import annotations

import pytest

from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import Kind
from tests.support.cluster.chart import EVERYTHING, of_kind, render

pytestmark = pytest.mark.integration

NETWORK_POLICY = Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")


async def test_network_policies_are_valid(client: KubeClient, namespace: str) -> None:
    policies = of_kind(render(*EVERYTHING, "networkPolicies.enabled=true", namespace=namespace), "NetworkPolicy")
    for policy in policies:
        await client.create(NETWORK_POLICY, policy)
    assert len(await client.list(NETWORK_POLICY, namespace)) == len(policies) == 4
