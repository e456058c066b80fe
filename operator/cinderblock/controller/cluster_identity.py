"""Which cluster this is."""

from __future__ import annotations

from typing import Final

from cinderblock.errors import AccessDenied
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import NAMESPACE

OLDEST: Final = "kube-system"
"""The namespace that is as old as its cluster and is never made again: its UID stands for the cluster (kubernetes
sig-architecture, "cluster ID"; OpenTelemetry's ``k8s.cluster.uid`` is the same)."""


class ClusterIdentity:
    """The UID of a cluster, asked for once: it never changes."""

    def __init__(self) -> None:
        self._uid: str | None = None

    async def uid(self, kube: KubeClient) -> str:
        """Return the UID; empty if the operator may not read it. Raises what the API server raises otherwise."""
        if self._uid is None:
            try:
                body = await kube.get(NAMESPACE, OLDEST)
            except AccessDenied:
                return ""
            self._uid = body["metadata"]["uid"] if body is not None else ""
        return self._uid
