"""The chart's ValidatingAdmissionPolicies on a real API server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from cinderblock.errors import AccessDenied, AlreadyExists
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import Kind
from tests.support.cluster.chart import Objects, of_kind

_GROUP: Final = "admissionregistration.k8s.io"
POLICY: Final = Kind(_GROUP, "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", namespaced=False)
BINDING: Final = Kind(
    _GROUP, "v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", namespaced=False
)
KINDS: Final = (POLICY, BINDING)
CONFIG_MAP: Final = Kind("", "v1", "configmaps", "ConfigMap")
ACTIVE_SECONDS: Final = 30.0
"""Time limit for a new policy to be enforced. The API server reads its policies every second or so."""


async def enforce(client: KubeClient, objects: Objects) -> None:
    """Create the policies and their bindings."""
    for kind in KINDS:
        for item in of_kind(objects, kind.kind):
            await client.create(kind, item)


async def lift(client: KubeClient, objects: Objects) -> None:
    """Remove the bindings and the policies."""
    for kind in reversed(KINDS):
        for item in of_kind(objects, kind.kind):
            await client.delete(kind, item["metadata"]["name"], None)


async def wait_until_refused(attempt: Callable[[], Awaitable[object]], message: str) -> None:
    """Repeat a write until a policy refuses it with this message."""
    deadline = time.monotonic() + ACTIVE_SECONDS
    while time.monotonic() < deadline:
        try:
            await attempt()
        except AccessDenied as error:
            if message in error.message:
                return
        except AlreadyExists:
            pass
        await asyncio.sleep(0.5)
    raise AssertionError("the policies are not enforced")


async def wait_until_enforced(operator: KubeClient, namespace: str) -> None:
    """Wait until the operator may not create a ConfigMap, although it has all rights."""
    body = {"metadata": {"name": "probe", "namespace": namespace}}
    await wait_until_refused(lambda: operator.create(CONFIG_MAP, body), "never writes objects of this type")
