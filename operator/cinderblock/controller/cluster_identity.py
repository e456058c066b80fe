"""The identity of the cluster."""

from __future__ import annotations

import asyncio
from typing import Final

from cinderblock.errors import AccessDenied
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import NAMESPACE

IDENTITY_NAMESPACE: Final = "kube-system"
"""The namespace that is as old as its cluster and never recreated. Its UID identifies the cluster (kubernetes
sig-architecture, "cluster ID"; OpenTelemetry's ``k8s.cluster.uid`` is the same)."""
DENIAL_SECONDS: Final = 600.0
"""For how long it counts that the operator may not read it: each reconciliation of a store needs the UID."""


class ClusterIdentity:
    """The UID of a cluster, read once: it never changes. For one event loop."""

    def __init__(self) -> None:
        self._uid: str | None = None
        self._denied_until = float("-inf")

    async def uid(self, kube: KubeClient) -> str:
        """Return the UID; empty if the operator may not read it. Raises what the API server raises otherwise."""
        clock = asyncio.get_running_loop().time
        if self._uid is None:
            if clock() < self._denied_until:
                return ""
            try:
                body = await kube.get(NAMESPACE, IDENTITY_NAMESPACE)
            except AccessDenied:
                self._denied_until = clock() + DENIAL_SECONDS
                return ""
            self._uid = body["metadata"]["uid"] if body is not None else ""
        return self._uid
