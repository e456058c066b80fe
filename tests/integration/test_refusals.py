"""The words with which a real API server refuses pods and claims are those that operations understand.

There is no Job controller, so the test adds the words that it puts before the server's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from typing_extensions import override

from cinderblock.api import labels
from cinderblock.errors import CinderblockError, InvalidInput, KubeUnavailable
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import Kind
from cinderblock.lifecycle import verdicts
from cinderblock.lifecycle.mover import refusals
from cinderblock.lifecycle.mover.job import DEFAULT_RESOURCES
from cinderblock.lifecycle.verdicts import Deadlines, Wait
from tests.support.cluster import unlike

pytestmark = pytest.mark.integration

Object = dict[str, Any]
LIMIT_RANGE = Kind("", "v1", "limitranges", "LimitRange")
QUOTA = Kind("", "v1", "resourcequotas", "ResourceQuota")
SERVICE_ACCOUNT = Kind("", "v1", "serviceaccounts", "ServiceAccount")
POLICY = Kind(
    "admissionregistration.k8s.io", "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", namespaced=False
)
BINDING = Kind(
    "admissionregistration.k8s.io",
    "v1",
    "validatingadmissionpolicybindings",
    "ValidatingAdmissionPolicyBinding",
    namespaced=False,
)


WEBHOOK = Kind(
    "admissionregistration.k8s.io",
    "v1",
    "validatingwebhookconfigurations",
    "ValidatingWebhookConfiguration",
    namespaced=False,
)


class Denying(unlike.Webhook):
    """A webhook that denies everything, and chooses no code."""

    @override
    def judge(self, kind: str, body: Object) -> Object:
        """Deny an object."""
        del kind, body
        return {"allowed": False, "status": {"message": "the label team is missing"}}


@asynccontextmanager
async def denying_webhook(client: KubeClient, namespace: str, *, answers: bool = True) -> AsyncIterator[None]:
    """Let a webhook judge the claims of a namespace until the block ends. Nothing listens if it does not answer."""
    await client.merge_patch(kinds.NAMESPACE, namespace, None, {"metadata": {"labels": {unlike.LABEL: namespace}}})
    claims = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["persistentvolumeclaims"],
    }
    with unlike.serve_webhook(Denying) as client_config:
        hook = {
            "name": "deny.example.org",
            "clientConfig": client_config if answers else {"url": "https://localhost:1/"},
            "rules": [claims],
            "namespaceSelector": {"matchLabels": {unlike.LABEL: namespace}},
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "timeoutSeconds": 5,
        }
        await client.create(WEBHOOK, {"metadata": {"name": namespace}, "webhooks": [hook]})
        try:
            yield
        finally:
            await client.delete(WEBHOOK, namespace, None)


def a_pod(namespace: str) -> Object:
    """Return a pod with the resources of a mover."""
    container = {"name": "mover", "image": "x", "resources": DEFAULT_RESOURCES}
    return {"metadata": {"name": "mover-x7k2p", "namespace": namespace}, "spec": {"containers": [container]}}


def a_claim(namespace: str) -> Object:
    requests = {"requests": {"storage": "5Gi"}}
    spec = {"accessModes": ["ReadWriteOnce"], "resources": requests}
    return {"metadata": {"name": "temporary", "namespace": namespace}, "spec": spec}


def limit(**fields: Any) -> Callable[[str], tuple[Kind, Object]]:
    """Return a function that makes a LimitRange with one limit in a namespace."""
    return lambda namespace: (
        LIMIT_RANGE,
        {"metadata": {"name": "limits", "namespace": namespace}, "spec": {"limits": [fields]}},
    )


async def refuse(client: KubeClient, kind: Kind, body: Object, *, dry_run: bool = False) -> CinderblockError:
    """Return the error of a creation. The API server learns of limits and policies only after a moment."""
    for number in range(100):
        try:
            body["metadata"]["name"] = f"mover-{number}" if kind == kinds.POD else labels.child_name(f"{number:0>36}")
            await client.create(kind, body, dry_run=dry_run)
        except CinderblockError as error:
            is_counted = "status unknown for quota" not in error.message
            if is_counted and any(words in error.message for words in ("is forbidden", "is invalid", "webhook")):
                return error
        await asyncio.sleep(0.1)
    raise AssertionError("the API server refuses nothing")


REFUSED_PODS = {
    "ratio": limit(type="Container", maxLimitRequestRatio={"memory": "2"}),
    "maximum": limit(type="Container", max={"memory": "256Mi"}),
    "minimum": limit(type="Container", min={"memory": "1Gi"}),
    "of a pod": limit(type="Pod", max={"memory": "256Mi"}),
    "default": limit(type="Container", default={"cpu": "50m"}),
}


@pytest.mark.parametrize("make", REFUSED_PODS.values(), ids=REFUSED_PODS.keys())
async def test_refused_pod_has_the_reason_of_its_cause(
    client: KubeClient, namespace: str, make: Callable[[str], tuple[Kind, Object]]
) -> None:
    await client.create(SERVICE_ACCOUNT, {"metadata": {"name": "default", "namespace": namespace}})
    await client.create(*make(namespace))
    error = await refuse(client, kinds.POD, a_pod(namespace))
    words = error.message.partition(": the API server")[2]
    refused = refusals.refused_pod(f"Error creating: {words.partition(': ')[2]}")
    assert refused is not None
    assert refused.reason == "LimitRangeViolated", error.message
    assert "spec.mover.resources" in refused.message
    assert "mover-" not in refused.message, "the name of the pod changes with every attempt"


@pytest.mark.parametrize("dry_run", [False, True], ids=["creation", "trial"])
@pytest.mark.parametrize(
    ("fields", "words", "remedy"),
    [
        ({"max": {"storage": "1Gi"}}, "maximum storage usage per PersistentVolumeClaim is 1Gi", "Raise the limit"),
        ({"min": {"storage": "9Gi"}}, "minimum storage usage per PersistentVolumeClaim is 9Gi", "Lower the minimum"),
    ],
    ids=["maximum", "minimum"],
)
async def test_refused_claim_is_waited_for_with_a_remedy(
    client: KubeClient, namespace: str, fields: Object, words: str, remedy: str, *, dry_run: bool
) -> None:
    await client.create(*limit(type="PersistentVolumeClaim", **fields)(namespace))
    error = await refuse(client, kinds.PVC, a_claim(namespace), dry_run=dry_run)
    verdict = verdicts.from_api_error(error, Deadlines())
    assert isinstance(verdict, Wait)
    assert verdict.reason == "LimitRangeViolated"
    assert words in verdict.message
    assert remedy in verdict.message


@pytest.mark.parametrize("dry_run", [False, True], ids=["creation", "trial"])
async def test_quota_refuses_a_claim_with_advice_about_the_quota(
    client: KubeClient, namespace: str, *, dry_run: bool
) -> None:
    hard = {"requests.storage": "1Gi"}
    await client.create(QUOTA, {"metadata": {"name": "small", "namespace": namespace}, "spec": {"hard": hard}})
    await client.merge_patch(
        QUOTA, "small", namespace, {"status": {"hard": hard, "used": {"requests.storage": "0"}}}, subresource="status"
    )
    error = await refuse(client, kinds.PVC, a_claim(namespace), dry_run=dry_run)
    verdict = verdicts.from_api_error(error, Deadlines())
    assert isinstance(verdict, Wait)
    assert (verdict.reason, "Raise the quota, or free some" in verdict.message) == ("QuotaExceeded", True)


async def test_trial_creates_nothing(client: KubeClient, namespace: str) -> None:
    created = await client.create(kinds.PVC, a_claim(namespace), dry_run=True)
    assert created["metadata"]["name"] == "temporary"
    assert await client.list(kinds.PVC, namespace) == []


async def test_denial_of_a_policy_is_waited_for_with_a_remedy(client: KubeClient, namespace: str) -> None:
    policy, binding = unlike.label_policy(namespace)
    await client.merge_patch(kinds.NAMESPACE, namespace, None, {"metadata": {"labels": {unlike.LABEL: namespace}}})
    await client.create(POLICY, policy)
    await client.create(BINDING, binding)
    try:
        error = await refuse(client, kinds.PVC, a_claim(namespace))
    finally:
        await client.delete(BINDING, namespace, None)
        await client.delete(POLICY, namespace, None)
    assert not isinstance(error, InvalidInput), "an invalid object would fail at once"
    verdict = verdicts.from_api_error(error, Deadlines())
    assert isinstance(verdict, Wait)
    assert "the label team is missing" in verdict.message
    assert "spec.mover.labels" in verdict.message


@pytest.mark.parametrize("dry_run", [False, True], ids=["creation", "trial"])
async def test_denial_of_a_webhook_is_waited_for_with_a_remedy(
    client: KubeClient, namespace: str, *, dry_run: bool
) -> None:
    async with denying_webhook(client, namespace):
        error = await refuse(client, kinds.PVC, a_claim(namespace), dry_run=dry_run)
    verdict = verdicts.from_api_error(error, Deadlines())
    assert isinstance(verdict, Wait), "a webhook that chooses no code denies with 400, like an invalid request"
    assert "the label team is missing" in verdict.message
    assert "spec.mover.labels" in verdict.message


async def test_webhook_that_does_not_answer_is_no_denial(client: KubeClient, namespace: str) -> None:
    async with denying_webhook(client, namespace, answers=False):
        error = await refuse(client, kinds.PVC, a_claim(namespace))
    assert isinstance(error, KubeUnavailable)
    verdict = verdicts.from_api_error(error, Deadlines())
    assert isinstance(verdict, Wait)
    assert "Repair the webhook" in verdict.message
