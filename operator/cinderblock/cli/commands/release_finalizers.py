"""``cinderblock release-finalizers``

A finalizer keeps an object, and its namespace, in deletion until the operator has done its part. Without an operator,
this never happens. Removing the finalizers changes nothing else: no object and no stored data is deleted. A new
operator adds them again.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from cinderblock.api import labels as api_labels
from cinderblock.cli.async_command import run_async
from cinderblock.cli.exit_codes import SUCCESS
from cinderblock.errors import Conflict, KubeUnavailable, NotFound
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient, connect
from cinderblock.kube.kinds import Kind

FINALIZERS: Final = frozenset(
    {
        *(api_labels.BACKUP_FINALIZER, api_labels.RESTORE_FINALIZER, api_labels.VERIFICATION_FINALIZER),
        *(api_labels.STORE_FINALIZER, api_labels.JOB_FINALIZER),
    }
)
DEPLOYMENT: Final = Kind("apps", "v1", "deployments", "Deployment")

MAX_ATTEMPTS: Final = 5
"""Attempts to patch an object that others change at the same time."""
STOP_SECONDS: Final = 120
"""Time limit for the operator's pod to end. Its grace period is 30 s."""

DESCRIPTION: Final = """\
Remove Cinderblock's finalizers from all objects in the cluster, before the operator is removed for good.

With the finalizers, VolumeBackups, VolumeRestores, BackupVerifications and BackupStores, the namespaces that hold them,
and ClusterBackupStores cannot be deleted without a running operator. No object and no stored data is deleted. Uses the
current kubeconfig context.
"""
EPILOG: Final = """\
examples:
  cinderblock release-finalizers --stop-deployment cinderblock-system/cinderblock
"""

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Operator:
    """The operator, which must not run meanwhile.

    Attributes:
        namespace, deployment: of its Deployment.
        pods: label selector of its pods; empty: the Deployment's own selector.
    """

    namespace: str
    deployment: str
    pods: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument(
        "--stop-deployment", metavar="NAMESPACE/NAME", help="first scale this Deployment, the operator's, to zero"
    )
    parser.add_argument(
        "--pods",
        metavar="SELECTOR",
        default="",
        help="label selector of the operator's pods (default: the selector of the Deployment)",
    )
    parser.add_argument(
        "--in-namespace",
        metavar="NAMESPACE",
        action="append",
        default=[],
        help="release only objects of this namespace, no ClusterBackupStores; may be repeated (default: everything)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Release all objects. Returns the exit code."""
    operator = None
    if arguments.stop_deployment:
        namespace, _, name = arguments.stop_deployment.partition("/")
        operator = Operator(namespace, name, arguments.pods)
    run_async("release-finalizers", _run(operator, tuple(arguments.in_namespace)))
    return SUCCESS


async def _run(operator: Operator | None, namespaces: tuple[str, ...]) -> None:
    kube = await connect()
    kube.namespaces = namespaces
    try:
        if operator:
            await stop_operator(kube, operator)
        for kind, count in (await release_finalizers(kube)).items():
            print(f"Released {count} of {kind}")
    finally:
        await kube.aclose()


async def stop_operator(kube: KubeClient, operator: Operator, *, sleep: Sleep = asyncio.sleep) -> None:
    """Scale the operator to zero and wait until its pods have ended.

    Raises:
        KubeUnavailable: a pod has not ended in time.
    """
    try:
        scale = await kube.merge_patch(
            DEPLOYMENT, operator.deployment, operator.namespace, {"spec": {"replicas": 0}}, subresource="scale"
        )
    except NotFound:
        return
    # A Deployment always has a selector, and its Scale shows it. An empty one would select every pod of the namespace.
    selector = operator.pods or scale["status"]["selector"]
    for _ in range(STOP_SECONDS):
        pods = await kube.list(kinds.POD, operator.namespace, labels=selector)
        if all(pod.get("status", {}).get("phase") in ("Succeeded", "Failed") for pod in pods):
            return
        await sleep(1)
    raise KubeUnavailable(
        f"Cannot stop Deployment {operator.namespace}/{operator.deployment}: its pods have not ended after"
        f" {STOP_SECONDS} s. Check why they do not terminate, then try again."
    )


async def release_finalizers(kube: KubeClient) -> dict[str, int]:
    """Remove the finalizers from the objects of our kinds and from mover Jobs, in all namespaces of the client.

    Returns:
        The number of released objects by type; 0 for a type that the cluster does not serve.

    Raises:
        Conflict: an object kept changing.
    """
    released = {}
    found = [kinds.VOLUME_RESTORE, kinds.VOLUME_BACKUP, kinds.BACKUP_VERIFICATION, kinds.BACKUP_STORE]
    if not kube.namespaces:
        # An operator of some namespaces does not work on these, and the one that does still needs their finalizers.
        found.append(kinds.CLUSTER_BACKUP_STORE)
    for kind in found:
        released[kind.resource] = await _release_all(kube, kind)
    movers = f"{api_labels.MANAGED_BY_LABEL}={api_labels.MANAGED_BY}"
    released[kinds.JOB.resource] = await _release_all(kube, kinds.JOB, labels=movers)
    return released


async def _release_all(kube: KubeClient, kind: Kind, *, labels: str = "") -> int:
    if not await kube.serves(kind):
        return 0
    held = [body for body in await kube.list(kind, labels=labels) if _is_held(body)]
    for body in held:
        await _release(kube, kind, body)
    return len(held)


async def _release(kube: KubeClient, kind: Kind, body: dict[str, Any]) -> None:
    """Remove the finalizers from one object, even if others change or delete it meanwhile."""
    name, namespace = body["metadata"]["name"], body["metadata"].get("namespace")
    current: dict[str, Any] | None = body
    for _ in range(MAX_ATTEMPTS):
        if current is None or not _is_held(current):
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
    raise Conflict(
        f"Cannot patch {kind.kind} {namespace}/{name}: it keeps changing. Stop whatever changes it, then try again."
    )


def _is_held(body: dict[str, Any]) -> bool:
    return not FINALIZERS.isdisjoint(body["metadata"].get("finalizers") or ())
