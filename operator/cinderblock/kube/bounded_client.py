"""A client that holds only so much of the cluster at once, for processes that answer many callers.

Objects may have 1.5 MiB each, and their owners decide: 500 of them in one response would end a process with a memory
limit. So responses are read up to a limit, a page that exceeds it is read again with fewer objects, and only the parts
of an object that have a reader are kept.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final

from pydantic_core import to_json
from typing_extensions import override

from cinderblock.api.labels import GROUP, MANAGED_BY_LABEL
from cinderblock.kube.client import JsonObject, JsonObjects, KubeClient
from cinderblock.kube.kinds import POD, Kind
from cinderblock.kube.list_memory import ListAccount
from cinderblock.kube.reduction import claim_volumes
from cinderblock.kube.responses import Response
from cinderblock.kube.rest_config import RestConfig
from cinderblock.kube.transport import Request, RoundTripper

RESPONSE_BYTES: Final = 4 << 20
"""Limit of one response: 500 backups take 1.1 MiB. An object has at most 1.5 MiB in etcd; a Pod takes more in JSON."""
_METADATA: Final = frozenset(
    {"name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp"}
    | {"annotations", "labels", "finalizers", "ownerReferences"}
)
_OURS: Final = (f"{GROUP}/", MANAGED_BY_LABEL)
_BYTES_PER_OBJECT: Final = 4096
_BYTES_PER_JSON_BYTE: Final = 5
"""Measured: a VolumeBackup of 2.2 kB takes 4 KiB as a dict, and 11 KiB more as a model."""


class BoundedKubeClient(KubeClient):
    """A client of one request.

    Args:
        transport: sends requests.
        account: the memory of the request.
    """

    def __init__(self, transport: RoundTripper, account: ListAccount) -> None:
        super().__init__(_LimitedTransport(transport), reduce=_without_unread_parts)
        self._account = account

    @override
    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> JsonObjects:
        items: JsonObjects = []
        async for page in self.pages(kind, namespace, labels=labels, fields=fields):
            if page is None:
                items = []
            else:
                await self._account.hold(sum(_estimate_bytes(item) for item in page))
                items += page
        return items

    @override
    async def pages(
        self, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> AsyncIterator[JsonObjects | None]:
        await self._account.hold(0)
        async for page in super().pages(kind, namespace, labels=labels, fields=fields):
            yield page


class _LimitedTransport(RoundTripper):
    """A transport that reads no response beyond RESPONSE_BYTES."""

    def __init__(self, inner: RoundTripper) -> None:
        self._inner = inner

    @override
    async def config(self) -> RestConfig:
        return await self._inner.config()

    @override
    async def round_trip(self, request: Request) -> Response:
        return await self._inner.round_trip(
            replace(request, at_most=min(request.at_most or RESPONSE_BYTES, RESPONSE_BYTES))
        )

    @override
    async def aclose(self) -> None:
        await self._inner.aclose()


def _estimate_bytes(item: JsonObject) -> int:
    """Return about how much memory an object takes, as a dict and as a model."""
    return _BYTES_PER_OBJECT + _BYTES_PER_JSON_BYTE * len(to_json(item))


def _without_unread_parts(kind: Kind, item: JsonObject) -> JsonObject:
    """Return the parts of an object that the gateway reads: its owner decides how large the others are.

    Objects outside namespaces, such as StorageClasses, belong to administrators and stay whole.
    """
    if not kind.namespaced:
        return item
    metadata = {key: value for key, value in item["metadata"].items() if key in _METADATA}
    for name in ("annotations", "labels"):
        found = metadata.get(name) or {}
        metadata[name] = {key: value for key, value in found.items() if key.startswith(_OURS)}
    if kind != POD:
        return item | {"metadata": metadata}
    spec, status = item.get("spec") or {}, item.get("status") or {}
    return {
        "metadata": metadata,
        "spec": {"nodeName": spec.get("nodeName"), "volumes": claim_volumes(spec.get("volumes") or ())},
        "status": {key: status[key] for key in ("phase", "startTime") if key in status},
    }
