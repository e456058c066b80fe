"""`cinderblock release-finalizers`: take our finalizers off every object, for when the operator goes.

A finalizer holds an object, and its namespace, in deletion until the operator has done its part. Without an operator
that is for ever. Nothing else is touched: no stored data, no object. An operator that comes back puts them on again.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from cinderblock.api import labels as api_labels
from cinderblock.cli.exit_codes import SUCCESS
from cinderblock.errors import Conflict, KubeUnavailable, NotFound
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient, connect
from cinderblock.kube.kinds import Kind

FINALIZERS: Final = frozenset(
    {api_labels.BACKUP_FINALIZER, api_labels.RESTORE_FINALIZER, api_labels.STORE_FINALIZER, api_labels.JOB_FINALIZER}
)
DEPLOYMENT: Final = Kind("apps", "v1", "deployments", "Deployment")

ATTEMPTS: Final = 5
"""How often an object is read again that changes while we patch it."""
STOP_SECONDS: Final = 120
"""How long the operator's pod may take to end; its grace period is 30 s."""

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Operator:
    """The operator that must not run meanwhile: its Deployment, and a selector of its pods."""

    namespace: str
    deployment: str
    pods: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command to its parser."""
    parser.description = "Take our finalizers off every object, before the operator is removed. No data is deleted."
    parser.add_argument("--stop-deployment", metavar="NAMESPACE/NAME", help="the operator's Deployment, stopped first")
    parser.add_argument("--pods", metavar="SELECTOR", default="", help="label selector of the operator's pods")


def run(arguments: argparse.Namespace) -> int:
    """Do it. Returns its exit code."""
    operator = None
    if arguments.stop_deployment:
        namespace, _, name = arguments.stop_deployment.partition("/")
        operator = Operator(namespace, name, arguments.pods)
    asyncio.run(_run(operator))
    return SUCCESS


async def _run(operator: Operator | None) -> None:
    kube = await connect()
    try:
        if operator:
            await stop_operator(kube, operator)
        for kind, count in (await release_finalizers(kube)).items():
            print(f"Released {count} of {kind}")
    finally:
        await kube.aclose()


async def stop_operator(kube: KubeClient, operator: Operator, *, sleep: Sleep = asyncio.sleep) -> None:
    """Scale the operator to nothing and wait until its pods have ended.

    Raises:
        KubeUnavailable: a pod has not ended in time.
    """
    try:
        await kube.merge_patch(
            DEPLOYMENT, operator.deployment, operator.namespace, {"spec": {"replicas": 0}}, subresource="scale"
        )
    except NotFound:
        return
    for _ in range(STOP_SECONDS):
        pods = await kube.list(kinds.POD, operator.namespace, labels=operator.pods)
        if all(pod.get("status", {}).get("phase") in ("Succeeded", "Failed") for pod in pods):
            return
        await sleep(1)
    raise KubeUnavailable(
        f"The operator {operator.namespace}/{operator.deployment} has not stopped in {STOP_SECONDS} s: see its pod"
    )


async def release_finalizers(kube: KubeClient) -> dict[str, int]:
    """Take our finalizers off our own objects and off mover Jobs, in all namespaces.

    Returns:
        How many objects were released, by type. A type that the cluster does not serve has none.

    Raises:
        Conflict: an object changes all the time.
    """
    released = {}
    for kind in (kinds.VOLUME_RESTORE, kinds.VOLUME_BACKUP, kinds.BACKUP_STORE):
        released[kind.resource] = await _release_all(kube, kind)
    movers = f"{api_labels.MANAGED_BY_LABEL}={api_labels.MANAGED_BY}"
    released[kinds.JOB.resource] = await _release_all(kube, kinds.JOB, labels=movers)
    return released


async def _release_all(kube: KubeClient, kind: Kind, *, labels: str = "") -> int:
    if not await kube.serves(kind):
        return 0
    held = [body for body in await kube.list(kind, labels=labels) if _ours(body)]
    for body in held:
        await _release(kube, kind, body)
    return len(held)


async def _release(kube: KubeClient, kind: Kind, body: dict[str, Any]) -> None:
    """Take our finalizers off one object, whatever else happens to it."""
    name, namespace = body["metadata"]["name"], body["metadata"]["namespace"]
    current: dict[str, Any] | None = body
    for _ in range(ATTEMPTS):
        if current is None or not _ours(current):
            return
        metadata = current["metadata"]
        kept = [finalizer for finalizer in metadata["finalizers"] if finalizer not in FINALIZERS]
        patch = {"finalizers": kept, "resourceVersion": metadata["resourceVersion"], "uid": metadata["uid"]}
        try:
            await kube.merge_patch(kind, name, namespace, {"metadata": patch})
        except NotFound:
            return
        except Conflict:
            current = await kube.get(kind, name, namespace)
        else:
            return
    raise Conflict(f"{kind.kind} {namespace}/{name} changes all the time: stop what changes it, and try again")


def _ours(body: dict[str, Any]) -> bool:
    return not FINALIZERS.isdisjoint(body["metadata"].get("finalizers") or ())
