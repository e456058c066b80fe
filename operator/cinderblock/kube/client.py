"""The verbs of the API server: plain dicts in, plain dicts out, errors of ours.

Every call has a time limit. Reads are repeated a few times; writes never, because the reconcile loop repeats them with
fresh eyes. Objects come without ``managedFields``, which are half of their size and which nobody here reads.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from cinderblock.errors import Conflict, InvalidInput, KubeUnavailable, NotFound
from cinderblock.kube.config_source import default_source
from cinderblock.kube.kinds import POD, Kind
from cinderblock.kube.responses import RequestInfo, Response, raise_for_status, rejected_fields
from cinderblock.kube.rest_config import RestConfig
from cinderblock.kube.transport import CALL_SECONDS, Request, RoundTripper, Transport

FIELD_MANAGER: Final = "cinderblock"
"""Who owns the fields that we write (server-side apply)."""
PAGE_LIMIT: Final = 500
"""Objects per page of a list: the number that client-go's pager and kubectl use."""
DISCOVERY_CACHE_SECONDS: Final = 30.0
"""How long it is remembered whether the cluster serves a type: CRDs come and go seldom, and a resync is slower."""

_STATUS_ATTEMPTS: Final = 3
"""How often a status is written over somebody else's change to the same object before it is a conflict."""

_MISTYPED: Final = ("failed to create typed live object", "failed to create manager for existing fields")
"""Server-side apply answers 500 with such words if the stored object does not fit the types of the schema."""
_LOST_MANAGER: Final = "before-first-apply"
"""Manager of fields whose managedFields were cleared (apimachinery managedfields: LastAppliedManager)."""

_SSA: Final = "application/apply-patch+yaml"
_MERGE: Final = "application/merge-patch+json"
_JSON_PATCH: Final = "application/json-patch+json"

JsonObject = dict[str, Any]
JsonObjects = list[JsonObject]


class Observer(Protocol):
    """Sees every request; for tests that count them, or crash before or after one."""

    async def before(self, call: RequestInfo) -> None:
        """Called before a request is sent. What it raises, the caller gets, and nothing is sent."""

    async def after(self, call: RequestInfo, status: int) -> None:
        """Called when the server has answered. What it raises, the caller gets instead of the answer."""


class KubeClient:
    """A client of one API server. Close it with ``aclose``.

    Raised from every method, and therefore not repeated below: KubeUnavailable (no answer, 429, 5xx), AccessDenied
    (401, 403), InvalidInput (the server finds the request wrong: 400, 422).

    Attributes:
        observer: sees every request; None: nobody does.
        guard: asked right before every write is sent; what it raises, the caller gets, and nothing is sent.
        calls: how many requests were sent, by verb and resource: ``calls["patch", "jobs.batch"]``.
        answers: how they were answered, by verb, resource with subresource, and HTTP status; 0: not at all.
    """

    def __init__(
        self, transport: RoundTripper, *, observer: Observer | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.observer = observer
        self.write_guard: Callable[[], None] = _allow
        self._clock = clock
        self.calls: Counter[tuple[str, str]] = Counter()
        self.response_counts: Counter[tuple[str, str, int]] = Counter()
        self._transport = transport
        self._served: dict[str, tuple[float, frozenset[str]]] = {}

    async def credentials(self) -> RestConfig:
        """What this client shows the server at this moment; kopf's own connection uses the same."""
        return await self._transport.credentials()

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> JsonObject | None:
        """One object, or None if there is none; None also if the cluster does not serve the type: see ``serves``."""
        answer = await self._send(RequestInfo("get", kind, namespace, name), "GET")
        if answer.status == 404:
            return None
        return _cleaned(answer.json())

    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> JsonObjects:
        """All objects of a type, of one namespace or of all, as they were at one instant.

        Args:
            kind: the type.
            namespace: None: all namespaces.
            labels: label selector, as kubectl takes it: ``app=shop,tier!=cache``.
            fields: field selector: ``status.phase=available``; what may be selected, the type says.

        Raises:
            NotFound: the cluster does not serve the type.
        """
        selectors = {"labelSelector": labels, "fieldSelector": fields}
        query = {"limit": str(PAGE_LIMIT)} | {key: value for key, value in selectors.items() if value}
        items: JsonObjects = []
        token = ""
        while True:
            answer = await self._send(
                RequestInfo("list", kind, namespace), "GET", query | ({"continue": token} if token else {})
            )
            if answer.status == 404:
                raise _not_served(kind)
            if answer.status == 410 and token:
                # The continuation has outlived the server's memory (5 minutes): begin again, in one piece.
                items, token, query = [], "", query | {"limit": "0"}
                continue
            page = answer.json()
            items += [_typed(kind, item) for item in page.get("items") or ()]
            token = str(page.get("metadata", {}).get("continue") or "")
            if not token:
                return items

    async def list_first(
        self, kind: Kind, namespace: str, at_most: int, *, fields: str = ""
    ) -> tuple[JsonObjects, bool]:
        """The first objects of a type in a namespace, in order of name, and whether these are all; see ``list``."""
        query = {"limit": str(at_most)} | ({"fieldSelector": fields} if fields else {})
        answer = await self._send(RequestInfo("list", kind, namespace), "GET", query)
        if answer.status == 404:
            raise _not_served(kind)
        page = answer.json()
        items = [_typed(kind, item) for item in page.get("items") or ()]
        return items, not page.get("metadata", {}).get("continue")

    async def check_may_list(self, kind: Kind, namespace: str | None = None) -> None:
        """Raises AccessDenied unless objects of a type may be listed now; reads one of them at most."""
        await self._send(RequestInfo("list", kind, namespace), "GET", {"limit": "1"})

    async def create(self, kind: Kind, body: JsonObject) -> JsonObject:
        """Create an object in the namespace that its body names. Fields that the server does not know are an error.

        Raises:
            AlreadyExists: there is one of that name; whose it is, its owner references say.
            NotFound: there is no such namespace, or the cluster does not serve the type.
        """
        metadata = body.get("metadata", {})
        namespace = metadata.get("namespace")
        if kind.namespaced and not namespace:
            raise InvalidInput(f"An object of {kind.resource} cannot be created without a namespace")
        call = RequestInfo("create", kind, namespace, metadata.get("name"))
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        answer = await self._send(call, "POST", query, _identified(kind, body), path=kind.path(namespace))
        return _cleaned(answer.json())

    async def replace(self, kind: Kind, body: JsonObject, *, subresource: str = "") -> JsonObject:
        """Put ``body`` in the place of the object of its name; its resourceVersion, if it has one, must be current.

        Raises:
            NotFound: there is no such object.
            Conflict: the object has changed since it was read, or is another one (by UID).
        """
        metadata = body.get("metadata", {})
        call = RequestInfo("update", kind, metadata.get("namespace"), metadata.get("name", ""), subresource)
        return await self._write(call, "PUT", _identified(kind, body), "application/json")

    async def merge_patch(
        self, kind: Kind, name: str, namespace: str | None, patch: JsonObject, *, subresource: str = ""
    ) -> JsonObject:
        """Merge ``patch`` into an object (RFC 7386: null removes, lists are replaced).

        ``metadata.resourceVersion`` in the patch is a precondition; so is ``metadata.uid``, except on a subresource.

        Raises:
            NotFound: there is no such object.
            Conflict: a precondition does not hold.
        """
        return await self._write(RequestInfo("patch", kind, namespace, name, subresource), "PATCH", patch, _MERGE)

    async def json_patch(
        self, kind: Kind, name: str, namespace: str | None, operations: JsonObjects, *, subresource: str = ""
    ) -> JsonObject:
        """Apply operations to an object in their order, all or none (RFC 6902).

        Raises:
            NotFound: there is no such object.
            Conflict: a ``test`` operation does not hold, or a path is not there.
        """
        call = RequestInfo("patch", kind, namespace, name, subresource)
        answer = await self._send(
            call, "PATCH", {"fieldManager": FIELD_MANAGER}, operations, _JSON_PATCH, accept=(422,)
        )
        if answer.status == 422 and rejected_fields(answer):
            raise_for_status(call, answer)
        if answer.status == 422:
            raise Conflict(f"Could not {call.describe()}: an operation does not fit what is there now")
        return _cleaned(answer.json())

    async def apply_status(
        self,
        kind: Kind,
        name: str,
        namespace: str | None,
        status: JsonObject,
        *,
        uid: str,
        resource_version: str | None = None,
    ) -> JsonObject:
        """Make ``status`` the part of the object's status that is ours, by server-side apply.

        Fields that we wrote before and that are missing now are removed; fields of others stay.

        The server ignores a UID on /status (a custom resource's metadata is taken from the stored object), so a
        status could land on a new object of the same name. Only a resourceVersion keeps it from that: without
        ``resource_version`` the object is read first, and its resourceVersion is used if its UID is the right one.

        Args:
            kind: the type.
            name: of the object.
            namespace: of the object.
            status: the whole of our status.
            uid: the object that was read; a new one of the same name is not touched.
            resource_version: of that object when it was read; it must not have changed since. Saves a read.

        Raises:
            NotFound: there is no such object.
            Conflict: it is another object, or has changed (without ``resource_version``: in every one of 3 attempts).
            InvalidInput: the status does not fit the schema; a new field needs the new CustomResourceDefinition.
        """
        if resource_version:
            return await self._apply_status_at(kind, name, namespace, status, resource_version)
        for attempt in range(1, _STATUS_ATTEMPTS + 1):
            seen = await self.get(kind, name, namespace)
            if seen is None:
                raise NotFound(f"Could not write the status of {kind.resource} {namespace}/{name}: it is gone")
            if seen["metadata"]["uid"] != uid:
                raise Conflict(f"Could not write the status of {kind.resource} {namespace}/{name}: it is a new object")
            try:
                return await self._apply_status_at(kind, name, namespace, status, seen["metadata"]["resourceVersion"])
            except Conflict:
                if attempt == _STATUS_ATTEMPTS:
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def delete(
        self, kind: Kind, name: str, namespace: str | None, *, uid: str | None = None, propagation: str = "Background"
    ) -> None:
        """Delete an object; one that is not there is deleted already. It stays while it has finalizers.

        Args:
            kind: the type.
            name: of the object.
            namespace: of the object.
            uid: if given, only the object with this UID.
            propagation: what becomes of the objects that it owns: Background, Foreground or Orphan.

        Raises:
            Conflict: the object of that name has another UID.
        """
        options: JsonObject = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid:
            options["preconditions"] = {"uid": uid}
        await self._send(RequestInfo("delete", kind, namespace, name), "DELETE", None, options, accept=(404,))

    async def pod_log_tail(
        self, namespace: str, pod: str, container: str, *, lines: int, limit_bytes: int = 16384
    ) -> str:
        """The last lines that a container has printed; nothing if it has not begun, or is gone.

        The kubelet counts ``limit_bytes`` from the *beginning* of these lines, so the last one may be cut.
        """
        call = RequestInfo("get", POD, namespace, pod, "log")
        query = {"container": container, "tailLines": str(lines), "limitBytes": str(limit_bytes)}
        answer = await self._send(call, "GET", query, accept=(400, 404))
        return answer.body.decode(errors="replace") if answer.is_success else ""

    async def create_review(self, kind: Kind, spec: JsonObject) -> JsonObject:
        """The status of a review: an object that is a question, is not stored, and comes back with the answer.

        ``kind`` is one of authentication.k8s.io or authorization.k8s.io, and is outside namespaces.
        """
        answer = await self._send(RequestInfo("create", kind), "POST", {}, _identified(kind, {"spec": spec}))
        return dict(answer.json().get("status") or {})

    async def serves(self, kind: Kind) -> bool:
        """Whether the cluster serves this type in this version; remembered for half a minute."""
        remembered = self._served.get(kind.api_path)
        if remembered is None or self._clock() - remembered[0] >= DISCOVERY_CACHE_SECONDS:
            answer = await self._transport.round_trip(Request("GET", kind.api_path))
            if not answer.is_success and answer.status != 404:
                raise_for_status(RequestInfo("list", kind), answer)
            resources = answer.json().get("resources") or () if answer.is_success else ()
            remembered = self._clock(), frozenset(resource["name"] for resource in resources)
            self._served[kind.api_path] = remembered
        return kind.plural in remembered[1]

    async def server_ready(self) -> bool:
        """Whether the server says of itself that it is ready (``/readyz``). Raises nothing."""
        try:
            return (await self._transport.round_trip(Request("GET", "/readyz"))).is_success
        except KubeUnavailable:
            return False

    async def server_answers(self) -> bool:
        """Whether the server answers, be it that it does not know us. Raises nothing."""
        try:
            return (await self._transport.round_trip(Request("GET", "/version"))).status < 500
        except KubeUnavailable:
            return False

    async def aclose(self) -> None:
        """Give up all connections. May be repeated."""
        await self._transport.aclose()

    async def _apply_status_at(
        self, kind: Kind, name: str, namespace: str | None, status: JsonObject, resource_version: str
    ) -> JsonObject:
        body = {"metadata": {"name": name, "resourceVersion": resource_version}, "status": status}
        if namespace:
            body["metadata"]["namespace"] = namespace
        call = RequestInfo("patch", kind, namespace, name, "status")
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        try:
            answer = await self._send(call, "PATCH", query, _identified(kind, body), _SSA)
        except KubeUnavailable as error:
            if not any(words in error.message for words in _MISTYPED):
                raise
            return await self._replace_status_at(kind, name, namespace, status, resource_version)
        applied: JsonObject = answer.json()
        if _has_lost_ownership(applied) and applied.get("status") != status:
            version = applied["metadata"]["resourceVersion"]
            return await self._replace_status_at(kind, name, namespace, status, version)
        return _cleaned(applied)

    async def _replace_status_at(
        self, kind: Kind, name: str, namespace: str | None, status: JsonObject, resource_version: str
    ) -> JsonObject:
        """Write a whole status by merge patch, for an object that server-side apply refuses, or whose owners are lost.

        A value of the wrong type that was stored under an older CustomResourceDefinition makes every server-side apply
        fail. Each other write to such an object is accepted, but clears its managedFields.
        """
        found = await self.get(kind, name, namespace)
        if found is None or found["metadata"]["resourceVersion"] != resource_version:
            raise Conflict(f"Could not write the status of {kind.resource} {namespace}/{name}: it has changed")
        patch = {
            "metadata": {"resourceVersion": resource_version},
            "status": _merge_from(found.get("status") or {}, status),
        }
        return await self.merge_patch(kind, name, namespace, patch, subresource="status")

    async def _write(self, call: RequestInfo, method: str, body: JsonObject, content_type: str) -> JsonObject:
        answer = await self._send(call, method, {"fieldManager": FIELD_MANAGER}, body, content_type)
        return _cleaned(answer.json())

    async def _send(
        self,
        call: RequestInfo,
        method: str,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
        *,
        path: str = "",
        accept: tuple[int, ...] = (),
    ) -> Response:
        """One request. Raises for every failure but those in ``accept``, and but 404 and 410 of reads."""
        path = path or call.kind.path(call.namespace, call.name, call.subresource)
        self.calls[call.verb, call.kind.resource] += 1
        if self.observer:
            await self.observer.before(call)
        data = None if body is None else json.dumps(body).encode()
        if call.is_write:
            self.write_guard()
        answer = await self._round_trip(call, Request(method, path, query or {}, data, content_type))
        if self.observer:
            await self.observer.after(call, answer.status)
        expected = accept if call.is_write else (*accept, 404, 410)
        if not answer.is_success and answer.status not in expected:
            raise_for_status(call, answer)
        return answer

    async def _round_trip(self, call: RequestInfo, request: Request) -> Response:
        """One request, counted by its answer."""
        code = 0
        try:
            answer = await self._transport.round_trip(request)
            code = answer.status
        finally:
            self.response_counts[call.verb, call.resource, code] += 1
        return answer


async def connect(
    *,
    kubeconfig: str | None = None,
    context: str | None = None,
    environment: Mapping[str, str] = os.environ,
    observer: Observer | None = None,
    call_seconds: float = CALL_SECONDS,
) -> KubeClient:
    """A client for the cluster that ``kubeconfig``, else KUBECONFIG, else the pod, else ~/.kube/config names.

    The credentials are read at once, so that what is wrong with them shows here; nothing is sent.

    Raises:
        InvalidInput: no or a wrong configuration.
        AccessDenied: a credential plugin gave nothing.
    """
    transport = Transport(default_source(environment, kubeconfig, context), call_seconds=call_seconds)
    await transport.credentials()
    return KubeClient(transport, observer=observer)


def _has_lost_ownership(body: JsonObject) -> bool:
    """Return whether managedFields were cleared, so that server-side apply no longer removes what we wrote before."""
    managers = body["metadata"].get("managedFields") or ()
    return any(m.get("manager") == _LOST_MANAGER and m.get("subresource") == "status" for m in managers)


def _merge_from(old: JsonObject, new: JsonObject) -> JsonObject:
    """Return the merge patch that turns ``old`` into ``new``."""
    nested = {
        key: _merge_from(old[key], value)
        for key, value in new.items()
        if isinstance(value, dict) and isinstance(old.get(key), dict)
    }
    return dict.fromkeys(old.keys() - new.keys()) | new | nested


def _not_served(kind: Kind) -> NotFound:
    return NotFound(f"The API server does not serve {kind.resource} in version {kind.version}: install it")


def _allow() -> None:
    """Every write may be sent."""


def _identified(kind: Kind, body: JsonObject) -> JsonObject:
    """``body`` with the apiVersion and kind that it is sent as."""
    return {**body, "apiVersion": kind.api_version, "kind": kind.kind}


def _typed(kind: Kind, item: JsonObject) -> JsonObject:
    """An item of a list, which lacks apiVersion and kind for the server's own types."""
    return _cleaned(_identified(kind, item))


def _cleaned(body: JsonObject) -> JsonObject:
    """``body`` without managedFields."""
    body.get("metadata", {}).pop("managedFields", None)
    return body
