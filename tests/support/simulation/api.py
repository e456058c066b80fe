"""An API server in memory with the requests that the operator uses: get, list, create, patch, delete, discovery.

It replaces the `Transport` of a `KubeClient`, so that the client and everything that uses it are real. It implements
resourceVersions and UIDs as preconditions, finalizers, generations, selectors, and /status as a subresource of our
kinds. `cluster` contains the controllers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from cinderblock.api.v1alpha1.backup import FOREIGN_FIELDS
from cinderblock.kube import kinds
from cinderblock.kube.client import PAGE_LIMIT
from cinderblock.kube.kinds import Kind
from cinderblock.kube.responses import Response
from cinderblock.kube.rest_config import RestConfig
from cinderblock.kube.transport import Request, Transport

Object = dict[str, Any]
Key = tuple[str, str, str]
"""Kind, namespace (empty outside namespaces) and name."""

START = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
OWN = ("BackupStore", "VolumeBackup", "VolumeRestore", "BackupVerification")
WITH_STATUS = (*OWN, "ClusterBackupStore", "BackupSchedule", "ClusterBackupSchedule", "BackupGrant", "RestoreSource")
"""Kinds whose status is a subresource."""
KINDS: dict[tuple[str, str], Kind] = {
    (kind.api_path, kind.plural): kind for kind in vars(kinds).values() if isinstance(kind, Kind)
}


def stamp(instant: datetime) -> str:
    """Return an instant as the API server writes it, in whole seconds."""
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Change:
    """A watch event: ADDED, MODIFIED or DELETED, or None for the initial list; and the object."""

    type: str | None
    object: Object


@dataclass
class ObjectsInMemory:
    """All objects, with the rules that apply to every writer.

    Attributes:
        clock: returns the present.
        version: increases with every change of any object.
        on_change: receives every change.
    """

    clock: Callable[[], datetime]
    on_change: Callable[[Change], object] = lambda change: None
    version: int = 0
    _objects: dict[Key, Object] = field(default_factory=dict)
    _uids: int = 0

    def get(self, kind: str, name: str, namespace: str = "") -> Object | None:
        """Return the object itself; change it only through `update`."""
        return self._objects.get((kind, namespace, name))

    def all(self, kind: str, namespace: str | None = None) -> list[Object]:
        """Return all objects of a kind, sorted by name."""
        found = [key for key in self._objects if key[0] == kind and namespace in (None, key[1])]
        return [self._objects[key] for key in sorted(found)]

    def by_uid(self, uid: str) -> Object | None:
        """Return the object with this UID."""
        return next((item for item in self._objects.values() if item["metadata"]["uid"] == uid), None)

    def create(self, kind: str, body: Object) -> Object | None:
        """Return the new object; None if the name is taken."""
        metadata = body["metadata"]
        key = (kind, metadata.get("namespace", ""), metadata["name"])
        if key in self._objects:
            return None
        self._uids += 1
        own = _copy(body) | {"kind": kind}
        if kind in WITH_STATUS:
            own.pop("status", None)
        own["metadata"] |= {
            "uid": str(UUID(int=self._uids)),
            "creationTimestamp": stamp(self.clock()),
            "generation": 1,
        }
        if kind == "PersistentVolumeClaim":
            own["metadata"]["finalizers"] = ["kubernetes.io/pvc-protection"]
        self._objects[key] = own
        self._changed("ADDED", own)
        return own

    def update(self, item: Object, **parts: Any) -> None:
        """Replace top-level parts of an object (spec, status, metadata); None removes. Equal parts change nothing."""
        changed = {part: _copy(value) for part, value in parts.items() if item.get(part) != value}
        if not changed:
            return
        for part, value in changed.items():
            if value is None:
                del item[part]
            else:
                item[part] = value
        if "spec" in changed:
            item["metadata"]["generation"] += 1
        self._changed("MODIFIED", item)
        self._remove_if_free(item)

    def delete(self, item: Object) -> None:
        """Delete an object, or set its deletionTimestamp if it has finalizers."""
        if item["metadata"].get("finalizers"):
            if "deletionTimestamp" not in item["metadata"]:
                generation = item["metadata"]["generation"] + 1
                deletion = {"deletionTimestamp": stamp(self.clock()), "generation": generation}
                self.update(item, metadata=item["metadata"] | deletion)
            return
        self._remove(item)

    def drop_finalizer(self, item: Object, finalizer: str) -> None:
        """Remove one finalizer."""
        kept = [name for name in item["metadata"].get("finalizers", ()) if name != finalizer]
        self.update(item, metadata=item["metadata"] | {"finalizers": kept})

    def _remove_if_free(self, item: Object) -> None:
        metadata = item["metadata"]
        if "deletionTimestamp" in metadata and not metadata.get("finalizers"):
            self._remove(item)

    def _remove(self, item: Object) -> None:
        metadata = item["metadata"]
        del self._objects[item["kind"], metadata.get("namespace", ""), metadata["name"]]
        self._changed("DELETED", item)

    def _changed(self, how: str, item: Object) -> None:
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        self.on_change(Change(how, _copy(item)))


class SimulatedApi(Transport):
    """The HTTP side, which only the operator uses.

    Attributes:
        objects: the objects of the server.
        log_line: the last log line of every running mover.
        check_write: receives every write of the operator, and raises AssertionError if it must never happen.
        rejections: the answer to the creation of an object of a kind: HTTP status and message.
        quota: kinds whose creation a quota rejects.
        full_namespaces: namespaces in which a quota rejects all creations.
        unreadable_namespaces: namespaces in which the operator has no rights.
        more_objects: objects that the first page of a list of our kinds in a namespace says it lacks.
    """

    def __init__(
        self,
        objects: ObjectsInMemory,
        check_write: Callable[[str, Object], None],
        rejections: Mapping[str, tuple[int, str]] = MappingProxyType({}),
    ) -> None:
        self.objects = objects
        self.check_write = check_write
        self.rejections = rejections
        self.quota: set[str] = set()
        self.full_namespaces: set[str] = set()
        self.unreadable_namespaces: set[str] = set()
        self.unreadable_kinds: set[str] = set()
        self.more_objects = 0
        self.log_line = '{"bytesDone":1,"bytesTotal":4}'

    async def config(self) -> RestConfig:
        return RestConfig(server="https://user:secret@simulated", context="lab")

    async def aclose(self) -> None:
        """Do nothing: there are no connections."""

    async def round_trip(self, request: Request) -> Response:
        parts = request.path.strip("/").split("/")
        at = 2 if parts[0] == "api" else 3
        root, rest = "/" + "/".join(parts[:at]), parts[at:]
        if not rest:
            served = [{"name": plural} for path, plural in KINDS if path == root]
            return _answer(200, {"resources": served})
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        if namespace in self.unreadable_namespaces:
            return _refusal(403, "Forbidden", "no RoleBinding")
        kind = KINDS[root, rest[0]]
        if kind.kind in self.unreadable_kinds:
            return _refusal(403, "Forbidden", "no RoleBinding")
        if len(rest) == 1:
            return self._collection(request, kind, namespace)
        return self._one(request, kind, namespace, rest[1], rest[2] if len(rest) > 2 else "")

    def _collection(self, request: Request, kind: Kind, namespace: str) -> Response:
        if request.method == "POST":
            ending = self.objects.get("Namespace", namespace) if namespace else None
            if ending is not None and "deletionTimestamp" in ending["metadata"]:
                return _refusal(403, f"unable to create new content because it is being terminated: {namespace}")
            if kind.kind in self.rejections:
                return _refusal(*self.rejections[kind.kind])
            if kind.kind in self.quota or namespace in self.full_namespaces:
                return _refusal(403, "Forbidden", "exceeded quota: small, used: count=1, limited: count=1")
            if "dryRun" in request.query:
                metadata = _body(request)["metadata"]
                is_taken = self.objects.get(kind.kind, metadata["name"], namespace) is not None
                return _refusal(409, "AlreadyExists") if is_taken else _answer(201, _body(request))
            made = self.objects.create(kind.kind, _body(request))
            return _answer(201, made) if made else _refusal(409, "AlreadyExists")
        items = [item for item in self.objects.all(kind.kind, namespace or None) if _selected(item, request.query)]
        first, limit = int(request.query.get("continue", 0)), int(request.query.get("limit", 0)) or len(items)
        more = str(first + limit) if first + limit < len(items) else ""
        metadata: Object = {"continue": more}
        if more and not request.query.keys() & {"fieldSelector", "labelSelector"}:
            metadata["remainingItemCount"] = len(items) - first - limit
        is_first = limit < PAGE_LIMIT and "fieldSelector" not in request.query
        if self.more_objects and kind.kind in OWN and is_first:
            metadata = {"continue": "never", "remainingItemCount": self.more_objects}
        return _answer(200, {"items": items[first : first + limit], "metadata": metadata})

    def _one(self, request: Request, kind: Kind, namespace: str, name: str, subresource: str) -> Response:
        found = self.objects.get(kind.kind, name, namespace)
        if found is None:
            return _refusal(404, "NotFound")
        if subresource == "log":
            return Response(200, self.log_line.encode())
        if request.method == "GET":
            return _answer(200, found)
        body = _body(request)
        expected = body.get("preconditions") or body.get("metadata") or {}
        if any(name in expected and expected[name] != found["metadata"][name] for name in ("uid", "resourceVersion")):
            return _refusal(409, "Conflict")
        self.check_write(f"{request.method} {subresource}".strip(), found)
        if request.method == "DELETE":
            self.objects.delete(found)
        elif subresource == "status":
            self.objects.update(found, status=_new_status(found.get("status") or {}, body["status"], request))
        else:
            merged = _merged(found, body)
            self.objects.update(found, **{part: value for part, value in merged.items() if part != "kind"})
        return _answer(200, found)


def _copy(value: Any) -> Any:
    """Return a copy of a value of JSON. Simulations copy so much that ``copy.deepcopy`` took a sixth of their time."""
    if isinstance(value, dict):
        return {name: _copy(part) for name, part in value.items()}
    return [_copy(part) for part in value] if isinstance(value, list) else value


def _body(request: Request) -> Object:
    body: Object = json.loads(json.dumps(request.body or {}))
    return body


def _answer(status: int, body: Object) -> Response:
    return Response(status, to_json(body))


def _refusal(code: int, reason: str, message: str = "") -> Response:
    return _answer(code, {"kind": "Status", "code": code, "reason": reason, "message": message or reason})


def _new_status(old: Object, given: Object, request: Request) -> Object:
    """Return the status after a write: an apply replaces it, except for what is only written by merge-patches."""
    if request.content_type == "application/merge-patch+json":
        merged: Object = _merged(old, given)
        return merged
    return {key: value for key, value in old.items() if key in FOREIGN_FIELDS} | given


def _merged(target: Any, patch: Any) -> Any:
    """Apply a merge-patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged


def _selected(item: Object, query: Any) -> bool:
    labels = item["metadata"].get("labels") or {}
    for key, operator, value in _terms(query.get("labelSelector", "")):
        if operator == "!=":
            if labels.get(key) == value:
                return False
            continue
        if key not in labels or (operator and labels[key] != value):
            return False
    return all(
        (_field(item, path) == value) == (operator == "=")
        for path, operator, value in _terms(query.get("fieldSelector", ""))
    )


def _terms(selector: str) -> Iterator[tuple[str, str, str]]:
    for term in filter(None, selector.split(",")):
        operator = "!=" if "!=" in term else "=" if "=" in term else ""
        key, _, value = term.partition(operator) if operator else (term, "", "")
        yield key, operator, value


def _field(item: Object, path: str) -> str:
    value: Any = item
    for step in path.split("."):
        value = value.get(step, {}) if isinstance(value, dict) else {}
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else ""
