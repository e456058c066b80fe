"""The verbs of the API server: plain dicts in, plain dicts out, our own errors.

Every call has a time limit. Reads are repeated a few times; writes never, because the reconcile loop reads the state
again before it repeats one. Objects come without ``managedFields``, which are half of their size and have no reader.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol
from weakref import WeakValueDictionary

from cinderblock.errors import AccessDenied, Conflict, InvalidInput, KubeUnavailable, NotFound, ResponseTooLarge
from cinderblock.kube.config_source import default_source
from cinderblock.kube.kinds import POD, SERVICE_ACCOUNT, Kind
from cinderblock.kube.page_limits import PageLimits
from cinderblock.kube.responses import RequestInfo, Response, raise_for_status
from cinderblock.kube.rest_config import RestConfig
from cinderblock.kube.transport import CALL_SECONDS, Request, RoundTripper, Transport
from cinderblock.reasons import Reason

log = logging.getLogger(__name__)

FIELD_MANAGER: Final = "cinderblock"
"""The owner of the fields that we write (server-side apply)."""
PAGE_LIMIT: Final = 500
"""Objects per page of a list, as in client-go's pager and kubectl."""
PAGE_BYTES: Final = 4 << 20
"""Most bytes of a page. 500 backups have 1.5 MiB, but anybody can make one object as large as that."""
FIRST_BYTES: Final = 512 << 10
"""Most bytes of the first objects of a list: each step of an operation reads a hundred backups, which have 300 KiB. The
server reads a page that is too large all the same, so a larger limit would let one namespace keep it busy."""
RESTARTS: Final = 5
"""How often a list begins again because its version has expired."""
LISTS_AT_ONCE: Final = 4
"""Pages of one namespace that are read at the same time by a client that reduces objects, so that they take at most
16 MiB. Lists of other namespaces do not wait for them."""
DISCOVERY_CACHE_SECONDS: Final = 30.0
"""How long `KubeClient.serves` is cached: CRDs rarely come and go, and a resync is slower."""

_STATUS_ATTEMPTS: Final = 3
"""How often a status is written, if the object changes each time between read and write."""

_MISTYPED: Final = ("failed to create typed live object", "failed to create manager for existing fields")
"""Server-side apply answers 500 with such words if the stored object does not fit the types of the schema."""
_LOST_MANAGER: Final = "before-first-apply"
"""Manager of fields whose managedFields were cleared (apimachinery managedfields: LastAppliedManager)."""

_SSA: Final = "application/apply-patch+yaml"
_MERGE: Final = "application/merge-patch+json"

JsonObject = dict[str, Any]
JsonObjects = list[JsonObject]
ResponseCounts = Counter[tuple[str, str, int]]
"""Number of responses by verb, resource with subresource, and HTTP status; 0: no response."""


Reduce = Callable[[Kind, JsonObject], JsonObject]
"""Returns what is kept of an object of a list; see `reduction`."""


@dataclass(frozen=True, slots=True)
class _Page:
    """A page of a list.

    Attributes:
        items: its objects.
        token: continues the list; empty: it has ended.
        remaining: number of objects after it; at least 1 if the list continues.
        is_expired: whether the server no longer knows the version of the list.
    """

    items: JsonObjects
    token: str
    remaining: int = 0
    is_expired: bool = False


class _ListExpired(Exception):
    """The server no longer knows the version of a list that was read in part."""


class Observer(Protocol):
    """Sees every request; for tests that count them, or crash before or after one."""

    async def before(self, info: RequestInfo, /) -> None:
        """Run before a request is sent. If it raises, nothing is sent and the caller gets the error."""

    async def after(self, info: RequestInfo, status: int, /) -> None:
        """Run when the server has responded. If it raises, the caller gets the error instead of the response."""


class KubeClient:
    """A client of one API server. Close it with ``aclose``.

    Every method raises, and does not list: KubeUnavailable (no response, 429, 5xx), AccessDenied (401, 403) and
    InvalidInput (the server rejects the request: 400, 422).

    Attributes:
        observer: sees every request; None: there is no observer.
        write_guard: called right before each write. If it raises, nothing is sent and the caller gets the error.
        response_counts: the responses, counted; clients may share it.
        namespaces: what "all namespaces" means in ``list`` and ``pages``; empty: really all.
        skips_unreadable: whether such lists leave out those of ``namespaces`` that may not be read, unless that is all
            of them. An object that is missing in such a list may still exist.
        unreadable: the namespaces that were left out of the last list.
        server_time: when the API server sent its last response, by its own clock; None: it has not said that yet.

    Args:
        transport: exchanges requests for responses.
        reduce: reduces the objects of lists to what the caller needs; None: they stay whole.
    """

    def __init__(
        self,
        transport: RoundTripper,
        *,
        observer: Observer | None = None,
        response_counts: ResponseCounts | None = None,
        reduce: Reduce | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.observer = observer
        self.write_guard: Callable[[], None] = _allow
        self.namespaces: tuple[str, ...] = ()
        self.skips_unreadable = False
        self.unreadable: set[str] = set()
        self.server_time: datetime | None = None
        self._clock = clock
        self.response_counts: ResponseCounts = Counter() if response_counts is None else response_counts
        self._transport = transport
        self._reduce = reduce
        self._limits = PageLimits()
        self._lists: WeakValueDictionary[str | None, asyncio.Semaphore] = WeakValueDictionary()
        self._served: dict[str, tuple[float, frozenset[str]]] = {}

    def reducing(self, reduce: Reduce) -> KubeClient:
        """Return a client with the same connection whose lists keep something else of each object."""
        other = copy.copy(self)
        other._reduce = reduce  # noqa: SLF001 - it is of the same class
        return other

    async def config(self) -> RestConfig:
        """Return the configuration in use; kopf's connection uses the same."""
        return await self._transport.config()

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> JsonObject | None:
        """Return one object, or None if it does not exist or the cluster does not serve the type (see ``serves``)."""
        response = await self._send(RequestInfo("get", kind, namespace, name), "GET")
        if response.status == 404:
            return None
        return _without_managed_fields(response.json())

    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> JsonObjects:
        """Return all objects of a type, of one namespace or of all, as they were at one instant.

        With ``namespaces``, the objects of each of them are as they were at one instant.

        Args:
            kind: the type.
            namespace: None: all namespaces, or those of ``namespaces``.
            labels: label selector in kubectl's form: ``app=shop,tier!=cache``.
            fields: field selector: ``status.phase=available``; the type determines the fields.

        Raises:
            NotFound: the cluster does not serve the type.
        """
        items: JsonObjects = []
        async for page in self.pages(kind, namespace, labels=labels, fields=fields):
            if page is None:
                items = []
            else:
                items += page
        return items

    async def pages(
        self, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> AsyncIterator[JsonObjects | None]:
        """Yield the objects of a type page by page; see ``list``. None: the list begins again, in all namespaces."""
        is_limited = namespace is None and kind.namespaced and self.namespaces
        names: Sequence[str | None] = self.namespaces if is_limited else (namespace,)
        selectors = {"labelSelector": labels, "fieldSelector": fields}
        query = {key: value for key, value in selectors.items() if value}
        for restarts in range(RESTARTS + 1):
            try:
                # A list that has expired once (after 5 minutes) is read in one page.
                async for page in self._pages_of_all(kind, names, query, limit=0 if restarts else PAGE_LIMIT):
                    yield page
            except _ListExpired:
                yield None
            else:
                return
        raise KubeUnavailable(f"Cannot list {kind.resource}: the list expired while it was read")

    async def _pages_of_all(
        self, kind: Kind, namespaces: Sequence[str | None], query: Mapping[str, str], limit: int
    ) -> AsyncIterator[JsonObjects]:
        """Yield the pages of one namespace after the other. Raises _ListExpired."""
        refused: dict[str, AccessDenied] = {}
        for namespace in namespaces:
            try:
                async for page in self._pages_of(kind, namespace, query, limit):
                    yield page
            except AccessDenied as error:
                if not self.skips_unreadable or namespace is None or error.reason == Reason.UNAUTHORIZED:
                    raise
                refused[namespace] = error
        if refused and len(refused) == len(namespaces):
            raise next(iter(refused.values()))
        if len(namespaces) > 1:
            self._report_unreadable(refused)

    def _report_unreadable(self, refused: Mapping[str, AccessDenied]) -> None:
        """Log which namespaces can no longer be read, and which can again."""
        for namespace in refused.keys() - self.unreadable:
            log.error(
                "Namespace %s is skipped, because the operator may not read it. Either it does not exist, or the"
                " RoleBinding of the operator there is gone. Create it again with helm upgrade, or remove the namespace"
                " from watchNamespaces. %s",
                namespace,
                refused[namespace].message,
            )
        for namespace in self.unreadable - refused.keys():
            log.info("Namespace %s can be read again", namespace)
        self.unreadable = set(refused)

    async def _pages_of(
        self, kind: Kind, namespace: str | None, query: Mapping[str, str], limit: int
    ) -> AsyncIterator[JsonObjects]:
        """Yield the pages of one list of the server. A limit of 0 is none. Raises _ListExpired."""
        selectors = "&".join(sorted(query.values()))
        limit, token = limit and self._limits.first(kind, namespace, limit, selectors), ""
        while True:
            page = await self._page(kind, namespace, {**query, "limit": str(limit)}, token)
            if page is None:
                limit = self._limits.shrink(kind, namespace, limit or PAGE_LIMIT, selectors)
            elif page.is_expired and token:
                raise _ListExpired
            elif page.is_expired:
                raise KubeUnavailable(f"Cannot list {kind.resource}: the list expired while it was read")
            else:
                yield page.items
                token = page.token
                if not token:
                    return
                limit = min(PAGE_LIMIT, 2 * limit)

    async def list_first(
        self, kind: Kind, namespace: str, at_most: int, *, fields: str = ""
    ) -> tuple[JsonObjects, int]:
        """Return the first objects of a type in a namespace by name, and how many more there are; see ``list``.

        If they are very large, there are fewer. With a field selector, the number is 0 or 1: the server does not count.
        """
        query, limit = {"fieldSelector": fields} if fields else {}, self._limits.first(kind, namespace, at_most, fields)
        while (page := await self._page(kind, namespace, query | {"limit": str(limit)}, max_bytes=FIRST_BYTES)) is None:
            limit = self._limits.shrink(kind, namespace, limit, fields)
        return page.items, page.remaining

    async def _page(
        self,
        kind: Kind,
        namespace: str | None,
        query: Mapping[str, str],
        continued: str = "",
        max_bytes: int = PAGE_BYTES,
    ) -> _Page | None:
        """Return one page of a list; None if it is too large. Objects are reduced before another page is parsed."""
        async with self._list_slot(namespace):
            try:
                response = await self._send(
                    RequestInfo("list", kind, namespace),
                    "GET",
                    {**query, **({"continue": continued} if continued else {})},
                    max_bytes=max_bytes if query["limit"] != "1" else None,
                )
            except ResponseTooLarge:
                if query["limit"] == "1":
                    raise
                return None
            if response.status == 404:
                raise _not_served(kind)
            if response.status == 410:
                return _Page([], "", is_expired=True)
            page = response.json()
            items = [self._reduced(kind, _with_type(kind, item)) for item in page.get("items") or ()]
            metadata = page.get("metadata", {})
            token = str(metadata.get("continue") or "")
            return _Page(items, token, max(1, metadata.get("remainingItemCount") or 0) if token else 0)

    def _list_slot(self, namespace: str | None) -> AbstractAsyncContextManager[None]:
        if self._reduce is None:
            return contextlib.nullcontext()
        slots = self._lists.get(namespace) or asyncio.Semaphore(LISTS_AT_ONCE)
        self._lists[namespace] = slots
        return slots

    def _reduced(self, kind: Kind, body: JsonObject) -> JsonObject:
        return _without_managed_fields(body) if self._reduce is None else self._reduce(kind, body)

    async def check_may_list(self, kind: Kind, namespace: str | None = None) -> None:
        """Raise AccessDenied unless objects of a type may be listed now; read at most one of them."""
        await self._send(RequestInfo("list", kind, namespace), "GET", {"limit": "1"})

    async def create(self, kind: Kind, body: JsonObject, *, dry_run: bool = False) -> JsonObject:
        """Create an object in the namespace that its body names. The server rejects fields that it does not know.

        With ``dry_run``, the server only answers as it would, and stores nothing.

        Raises:
            AlreadyExists: an object of that name exists; its owner references tell whose it is.
            NotFound: the namespace does not exist, or the cluster does not serve the type.
        """
        metadata = body.get("metadata", {})
        namespace = metadata.get("namespace")
        if kind.namespaced and not namespace:
            raise InvalidInput(f"Cannot create an object of {kind.resource} without a namespace")
        info = RequestInfo("create", kind, namespace, metadata.get("name"))
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
        response = await self._send(info, "POST", query, _with_type(kind, body), path=kind.path(namespace))
        return _without_managed_fields(response.json())

    async def replace(self, kind: Kind, body: JsonObject, *, subresource: str = "") -> JsonObject:
        """Replace the object of the same name with ``body``; a resourceVersion in ``body`` must be current.

        Raises:
            NotFound: the object does not exist.
            Conflict: the object has changed since it was read, or has another UID.
        """
        metadata = body.get("metadata", {})
        info = RequestInfo("update", kind, metadata.get("namespace"), metadata.get("name", ""), subresource)
        return await self._write(info, "PUT", _with_type(kind, body), "application/json")

    async def merge_patch(
        self, kind: Kind, name: str, namespace: str | None, patch: JsonObject, *, subresource: str = ""
    ) -> JsonObject:
        """Merge ``patch`` into an object (RFC 7386: null removes, lists are replaced).

        ``metadata.resourceVersion`` in the patch is a precondition, and also ``metadata.uid`` except on a subresource.

        Raises:
            NotFound: the object does not exist.
            Conflict: a precondition does not hold.
        """
        return await self._write(RequestInfo("patch", kind, namespace, name, subresource), "PATCH", patch, _MERGE)

    async def apply_status(
        self,
        kind: Kind,
        name: str,
        namespace: str | None,
        status: JsonObject,
        *,
        uid: str,
        resource_version: str | None = None,
        preserved: Collection[str] = (),
    ) -> JsonObject:
        """Set our part of an object's status by server-side apply.

        Fields that we applied before and that are now missing are removed; the fields of other managers stay.

        The server ignores a UID on /status (it takes a custom resource's metadata from the stored object), so a status
        could land on a new object of the same name. Only a resourceVersion prevents that. Without
        ``resource_version``, the object is read first, and its resourceVersion is used if its UID matches.

        Args:
            kind: the type.
            name: of the object.
            namespace: of the object.
            status: our complete status.
            uid: of the object that was read; a new object of the same name is not changed.
            resource_version: of the object when it was read; it must be unchanged. Saves a read.
            preserved: names of fields that other writers set by merge patch. ``status`` must not contain them.

        Raises:
            NotFound: the object does not exist.
            Conflict: it is another object, or has changed (without ``resource_version``: in each of 3 attempts).
            InvalidInput: the status does not fit the schema; a new field needs the new CustomResourceDefinition.
        """
        if resource_version:
            return await self._apply_status_at(kind, name, namespace, status, resource_version, preserved=preserved)
        for attempt in range(1, _STATUS_ATTEMPTS + 1):
            current = await self.get(kind, name, namespace)
            description = f"{kind.resource} {namespace}/{name}"
            if current is None:
                raise NotFound(f"Cannot write the status of {description}: the object no longer exists")
            if current["metadata"]["uid"] != uid:
                raise Conflict(f"Cannot write the status of {description}: a new object has the same name")
            try:
                version = current["metadata"]["resourceVersion"]
                return await self._apply_status_at(kind, name, namespace, status, version, preserved=preserved)
            except Conflict:
                if attempt == _STATUS_ATTEMPTS:
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        propagation: str = "Background",
    ) -> None:
        """Delete an object, unless it is gone already. An object with finalizers stays until they are removed.

        Args:
            kind: the type.
            name: of the object.
            namespace: of the object.
            uid: if given, delete only the object with this UID.
            resource_version: if given, delete the object only if it has not changed since.
            propagation: how its dependents are deleted: Background, Foreground or Orphan.

        Raises:
            Conflict: the object of that name has another UID, or has changed.
        """
        options: JsonObject = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        given = {"uid": uid, "resourceVersion": resource_version}
        preconditions = {name: value for name, value in given.items() if value}
        if preconditions:
            options["preconditions"] = preconditions
        await self._send(RequestInfo("delete", kind, namespace, name), "DELETE", None, options, accept=(404,))

    async def pod_log_tail(
        self, namespace: str, pod: str, container: str, *, lines: int, limit_bytes: int = 16384
    ) -> str:
        """Return the last lines that a container has printed, or nothing if it has not started or no longer exists.

        The kubelet counts ``limit_bytes`` from the *beginning* of these lines, so the last one may be cut.
        """
        info = RequestInfo("get", POD, namespace, pod, "log")
        query = {"container": container, "tailLines": str(lines), "limitBytes": str(limit_bytes)}
        response = await self._send(info, "GET", query, accept=(400, 404))
        return response.body.decode(errors="replace") if response.is_success else ""

    async def create_review(self, kind: Kind, spec: JsonObject) -> JsonObject:
        """Submit a review, which the server evaluates and does not store, and return its status.

        ``kind`` is a cluster-scoped type of authentication.k8s.io or authorization.k8s.io.
        """
        response = await self._send(RequestInfo("create", kind), "POST", {}, _with_type(kind, {"spec": spec}))
        return dict(response.json().get("status") or {})

    async def create_token(self, namespace: str, account: str, audience: str, seconds: int) -> str:
        """Return a new token of a ServiceAccount for an audience (authentication.k8s.io/v1 TokenRequest).

        Args:
            namespace: of the ServiceAccount.
            account: its name.
            audience: who may accept the token.
            seconds: requested lifetime, at least 600; the server may choose another one.
        """
        info = RequestInfo("create", SERVICE_ACCOUNT, namespace, account, "token")
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [audience], "expirationSeconds": seconds},
        }
        response = await self._send(info, "POST", {}, request)
        return str(response.json()["status"]["token"])

    async def serves(self, kind: Kind) -> bool:
        """Return whether the cluster serves this type in this version, cached for half a minute."""
        cached = self._served.get(kind.api_path)
        if cached is None or self._clock() - cached[0] >= DISCOVERY_CACHE_SECONDS:
            response = await self._transport.round_trip(Request("GET", kind.api_path))
            if not response.is_success and response.status != 404:
                raise_for_status(RequestInfo("list", kind), response)
            resources = response.json().get("resources") or () if response.is_success else ()
            cached = self._clock(), frozenset(resource["name"] for resource in resources)
            self._served[kind.api_path] = cached
        return kind.plural in cached[1]

    async def server_ready(self) -> bool:
        """Return whether the server reports that it is ready (``/readyz``). Raises nothing."""
        try:
            return (await self._transport.round_trip(Request("GET", "/readyz"))).is_success
        except KubeUnavailable:
            return False

    async def server_responds(self) -> bool:
        """Return whether the server responds without a server error, even with 401 or 403. Raises nothing."""
        try:
            return (await self._transport.round_trip(Request("GET", "/version"))).status < 500
        except KubeUnavailable:
            return False

    async def aclose(self) -> None:
        """Close all connections. May be repeated."""
        await self._transport.aclose()

    async def _apply_status_at(
        self,
        kind: Kind,
        name: str,
        namespace: str | None,
        status: JsonObject,
        resource_version: str,
        *,
        preserved: Collection[str],
    ) -> JsonObject:
        body = {"metadata": {"name": name, "resourceVersion": resource_version}, "status": status}
        if namespace:
            body["metadata"]["namespace"] = namespace
        info = RequestInfo("patch", kind, namespace, name, "status")
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        try:
            response = await self._send(info, "PATCH", query, _with_type(kind, body), _SSA)
        except KubeUnavailable as error:
            if not any(text in error.message for text in _MISTYPED):
                raise
            return await self._replace_status_at(kind, name, namespace, status, resource_version, preserved=preserved)
        applied: JsonObject = response.json()
        if _has_lost_ownership(applied) and _without(applied.get("status") or {}, preserved) != status:
            version = applied["metadata"]["resourceVersion"]
            return await self._replace_status_at(kind, name, namespace, status, version, preserved=preserved)
        return _without_managed_fields(applied)

    async def _replace_status_at(
        self,
        kind: Kind,
        name: str,
        namespace: str | None,
        status: JsonObject,
        resource_version: str,
        *,
        preserved: Collection[str],
    ) -> JsonObject:
        """Write a whole status by merge patch, for an object that server-side apply refuses, or whose owners are lost.

        A value of the wrong type that was stored under an older CustomResourceDefinition makes every server-side apply
        fail. Each other write to such an object is accepted, but clears its managedFields.
        """
        found = await self.get(kind, name, namespace)
        if found is None or found["metadata"]["resourceVersion"] != resource_version:
            raise Conflict(f"Cannot write the status of {kind.resource} {namespace}/{name}: it has changed")
        patch = {
            "metadata": {"resourceVersion": resource_version},
            "status": _merge_from(_without(found.get("status") or {}, preserved), status),
        }
        return await self.merge_patch(kind, name, namespace, patch, subresource="status")

    async def _write(self, info: RequestInfo, method: str, body: JsonObject, content_type: str) -> JsonObject:
        response = await self._send(info, method, {"fieldManager": FIELD_MANAGER}, body, content_type)
        return _without_managed_fields(response.json())

    async def _send(
        self,
        info: RequestInfo,
        method: str,
        query: Mapping[str, str] | None = None,
        body: JsonObject | None = None,
        content_type: str = "application/json",
        *,
        path: str = "",
        accept: tuple[int, ...] = (),
        max_bytes: int | None = None,
    ) -> Response:
        """Send one request. Raise for every failure except those in ``accept``, and 404 and 410 of reads."""
        path = path or info.kind.path(info.namespace, info.name, info.subresource)
        if self.observer:
            await self.observer.before(info)
        if info.is_write:
            self.write_guard()
        response = await self._round_trip(
            info, Request(method, path, query or {}, body, content_type, at_most=max_bytes)
        )
        if self.observer:
            await self.observer.after(info, response.status)
        expected = accept if info.is_write else (*accept, 404, 410)
        if not response.is_success and response.status not in expected:
            raise_for_status(info, response)
        return response

    async def _round_trip(self, info: RequestInfo, request: Request) -> Response:
        """Send one request and count its response."""
        status = 0
        try:
            response = await self._transport.round_trip(request)
            status = response.status
            self.server_time = response.date or self.server_time
        finally:
            self.response_counts[info.verb, info.resource, status] += 1
        return response


async def connect(
    *,
    kubeconfig: str | None = None,
    context: str | None = None,
    environment: Mapping[str, str] = os.environ,
    observer: Observer | None = None,
    response_counts: ResponseCounts | None = None,
    reduce: Reduce | None = None,
    call_seconds: float = CALL_SECONDS,
) -> KubeClient:
    """Return a client for the cluster that ``kubeconfig``, else KUBECONFIG, the pod or ~/.kube/config names.

    The configuration is read at once, so its errors appear here; nothing is sent.

    Raises:
        InvalidInput: the configuration is missing or wrong.
        AccessDenied: a credential plugin gave nothing.
    """
    transport = Transport(default_source(environment, kubeconfig, context), call_seconds=call_seconds)
    await transport.config()
    return KubeClient(transport, observer=observer, response_counts=response_counts, reduce=reduce)


def _has_lost_ownership(body: JsonObject) -> bool:
    """Return whether managedFields were cleared, so that server-side apply no longer removes what we wrote before."""
    managers = body["metadata"].get("managedFields") or ()
    return any(m.get("manager") == _LOST_MANAGER and m.get("subresource") == "status" for m in managers)


def _without(status: JsonObject, names: Collection[str]) -> JsonObject:
    return {key: value for key, value in status.items() if key not in names}


def _merge_from(old: JsonObject, new: JsonObject) -> JsonObject:
    """Return the merge patch that turns ``old`` into ``new``."""
    nested = {
        key: _merge_from(old[key], value)
        for key, value in new.items()
        if isinstance(value, dict) and isinstance(old.get(key), dict)
    }
    return dict.fromkeys(old.keys() - new.keys()) | new | nested


def _not_served(kind: Kind) -> NotFound:
    return NotFound(
        f"Cannot list {kind.resource}: the API server does not serve it in version {kind.version}. "
        "Install its CustomResourceDefinition."
    )


def _allow() -> None:
    """Allow every write."""


def _with_type(kind: Kind, body: JsonObject) -> JsonObject:
    """Return ``body`` with apiVersion and kind, which items of a list lack for the server's own types."""
    return {**body, "apiVersion": kind.api_version, "kind": kind.kind}


def _without_managed_fields(body: JsonObject) -> JsonObject:
    body.get("metadata", {}).pop("managedFields", None)
    return body
