"""The identity of the cluster."""

from __future__ import annotations

from typing import Final

from cinderblock.errors import AccessDenied
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import NAMESPACE

IDENTITY_NAMESPACE: Final = "kube-system"
"""The namespace that is as old as its cluster and never recreated. Its UID identifies the cluster (kubernetes
sig-architecture, "cluster ID"; OpenTelemetry's ``k8s.cluster.uid`` is the same)."""


class ClusterIdentity:
    """The UID of a cluster, read once: it never changes."""

    def __init__(self) -> None:
        self._uid: str | None = None

    async def uid(self, kube: KubeClient) -> str:
        """Return the UID; empty if the operator may not read it. Raises what the API server raises otherwise."""
        if self._uid is None:
            try:
                body = await kube.get(NAMESPACE, IDENTITY_NAMESPACE)
            except AccessDenied:
                return ""
            self._uid = body["metadata"]["uid"] if body is not None else ""
        return self._uid
