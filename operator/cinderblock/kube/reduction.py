"""Objects of lists, reduced to what decisions need, because anybody in a namespace can make an object very large.

An annotation may have 256 KiB, and an object 1.5 MiB. The operator keeps lists of all namespaces, so it keeps only the
metadata that it knows, and no text that it only passes on. A single object that is read by its name stays whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from cinderblock.api import labels
from cinderblock.api.kubernetes import (
    DEFAULT_SNAPSHOT_CLASS_ANNOTATION,
    DEFAULT_STORAGE_CLASS_ANNOTATION,
    PROVISIONED_BY_ANNOTATION,
    SELECTED_NODE_ANNOTATION,
)
from cinderblock.kube.kinds import BACKUP_STORE, CLUSTER_BACKUP_STORE, EVENT, JOB, POD, PVC, Kind

JsonObject = dict[str, Any]

VALUE_LIMIT: Final = 280
"""Characters of a label or annotation that is kept. Names of Kubernetes have at most 253, and some follow a kind."""
OWNER_LIMIT: Final = 16
"""Owner references that are kept, if their fields are no longer than VALUE_LIMIT: the API server has no limit."""
CLAIM_LIMIT: Final = 128
"""Claims of a pod that are kept; see FURTHER_CLAIMS. Most drivers attach fewer volumes to a whole node."""
FURTHER_CLAIMS: Final = "hasFurtherClaims"
"""Field of our own in the spec of a reduced pod with more claims: it counts as a user of every claim."""
NAME_LIMIT: Final = 253
"""Characters of the longest name. The API server accepts a pod that names a longer claim, which cannot exist."""
NOTE_LIMIT: Final = 1024
"""Characters of an Event's note that are kept, as many as the API server allows (events.k8s.io)."""

_KEPT_METADATA: Final = frozenset(
    {
        *("name", "namespace", "uid", "resourceVersion", "generation"),
        *("creationTimestamp", "deletionTimestamp"),
    }
)
_OF_THE_GATEWAY: Final = frozenset(
    {
        *(labels.CREATED_BY_ANNOTATION, labels.DESCRIPTION_ANNOTATION, labels.DISPLAY_NAME_ANNOTATION),
        *(labels.METADATA_ANNOTATION, labels.RECORDED_SIZE_ANNOTATION, labels.SNAPSHOT_ANNOTATION),
        labels.VOLUME_METADATA_ANNOTATION,
    }
)
"""Annotations that the operator never reads."""
_KEPT_KEYS: Final = (
    frozenset(
        {
            *(key for name, key in vars(labels).items() if name.endswith(("_LABEL", "_ANNOTATION"))),
            *(DEFAULT_SNAPSHOT_CLASS_ANNOTATION, DEFAULT_STORAGE_CLASS_ANNOTATION, PROVISIONED_BY_ANNOTATION),
            SELECTED_NODE_ANNOTATION,
        }
    )
    - _OF_THE_GATEWAY
)
"""Labels and annotations that decisions read from lists: all marks of the operator, so that none is forgotten."""
_KEPT_FINALIZERS: Final = frozenset(
    {
        *(labels.BACKUP_FINALIZER, labels.RESTORE_FINALIZER, labels.VERIFICATION_FINALIZER),
        *(labels.STORE_FINALIZER, labels.JOB_FINALIZER),
    }
)
_OWNER_FIELDS: Final = ("apiVersion", "kind", "name", "uid", "controller")
_PASSED_ON: Final = frozenset({"description", "metadata", "labels", "annotations"})
"""Fields of our kinds that users fill, and that the operator reads from the object itself."""
_STORE_SPEC: Final = ("credentialsSecretRef", "clusterStoreRef", "access", "container", "prefix")
"""Fields that make the spec of a BackupStore valid, its access and its place. Lists are read for names, marks and
conditions, and spec.mover may have 1.5 MiB. A caller that uses a store reads it by its name."""
_INVENTORY: Final = frozenset({"released"})
"""Fields of the status of a BackupStore that may be long, and that only its own reconciliation reads."""
_CLUSTER_STORE_SPEC: Final = ("credentialsSecretRef", "container")
"""The same of a ClusterBackupStore."""
_CLAIM_FIELDS: Final = ("storageClassName", "volumeName", "phase")
"""Fields of the spec and the status of claims by which schedules select them."""
_POD_SPEC: Final = ("nodeName", "volumes")
_POD_STATUS: Final = (
    *("phase", "reason", "message", "conditions"),
    *("containerStatuses", "initContainerStatuses"),
)


def reduce_object(kind: Kind, body: JsonObject) -> JsonObject:
    """Return what is kept of an object of a list."""
    kept = {key: value for key, value in body.items() if key not in ("metadata", "spec", "status")}
    if kind == EVENT:
        note = str(body.get("note") or "")[:NOTE_LIMIT]
        return {"kind": kind.kind, "apiVersion": kind.api_version, "note": note, "metadata": reduce_metadata(body)}
    kept["metadata"] = reduce_metadata(body)
    for part in ("spec", "status"):
        if isinstance(body.get(part), dict):
            kept[part] = _part(kind, part, body[part])
    return kept


def reduce_with_labels(kind: Kind, body: JsonObject) -> JsonObject:
    """Return the same with all labels, for callers that match selectors and hold one page at a time."""
    kept = reduce_object(kind, body)
    kept["metadata"]["labels"] = body["metadata"].get("labels") or {}
    return kept


def reduce_metadata(body: Mapping[str, Any]) -> JsonObject:
    """Return what is kept of the metadata of an object."""
    metadata = body.get("metadata") or {}
    kept = {key: metadata[key] for key in _KEPT_METADATA if key in metadata}
    for field in ("labels", "annotations"):
        values = metadata.get(field) or {}
        kept[field] = {key: value for key, value in values.items() if key in _KEPT_KEYS and len(value) <= VALUE_LIMIT}
    # A list may name the same finalizer very often.
    names = dict.fromkeys(metadata.get("finalizers") or ())
    kept["finalizers"] = [name for name in names if name in _KEPT_FINALIZERS]
    owners = (metadata.get("ownerReferences") or ())[:OWNER_LIMIT]
    kept["ownerReferences"] = [_short(owner, _OWNER_FIELDS) for owner in owners if _is_short(owner, _OWNER_FIELDS)]
    return kept


def _is_short(fields: Mapping[str, Any], names: Iterable[str]) -> bool:
    return all(len(str(fields.get(name, ""))) <= VALUE_LIMIT for name in names)


def _short(fields: Mapping[str, Any], names: Iterable[str]) -> JsonObject:
    """Return these fields, without very long ones."""
    return {name: fields[name] for name in names if name in fields and _is_short(fields, [name])}


def _part(kind: Kind, part: str, fields: JsonObject) -> JsonObject:
    if kind in (BACKUP_STORE, CLUSTER_BACKUP_STORE) and part == "spec":
        names = _STORE_SPEC if kind == BACKUP_STORE else _CLUSTER_STORE_SPEC
        return {key: fields[key] for key in names if key in fields}
    if kind == BACKUP_STORE and part == "status":
        return {key: value for key, value in fields.items() if key not in _INVENTORY}
    if kind.group == labels.GROUP:
        return {key: value for key, value in fields.items() if key not in _PASSED_ON}
    if kind == POD:
        parts = _POD_SPEC if part == "spec" else _POD_STATUS
        kept: JsonObject = {key: fields[key] for key in parts if key in fields}
        return kept | (_few_claims(kept["volumes"] or ()) if "volumes" in kept else {})
    if kind == JOB and part == "spec":
        return {"suspend": fields.get("suspend", False)}
    if kind == PVC:
        # Lists of claims are read for names, marks, UIDs and classes. There may be very many.
        return _short(fields, _CLAIM_FIELDS) | _source(fields)
    return fields


def _source(fields: JsonObject) -> JsonObject:
    """Return the dataSourceRef of a claim that names one of our kinds."""
    source = fields.get("dataSourceRef") or {}
    if source.get("apiGroup") != labels.GROUP:
        return {}
    return {"dataSourceRef": _short(source, ("apiGroup", "kind", "name", "namespace"))}


def _few_claims(volumes: Iterable[Any]) -> JsonObject:
    """Return the first claims of a pod, and whether it has more."""
    found = [volume for volume in volumes if len(_claim_name(volume)) <= NAME_LIMIT]
    claims = claim_volumes(found)
    return {"volumes": claims[:CLAIM_LIMIT]} | ({FURTHER_CLAIMS: True} if len(claims) > CLAIM_LIMIT else {})


def _claim_name(volume: Any) -> str:
    return str((volume.get("persistentVolumeClaim") or {}).get("claimName", ""))


def claim_volumes(volumes: Any) -> list[JsonObject]:
    """Return the volumes of a pod that are claims, each with the claim's name only."""
    found = [volume for volume in volumes if volume.get("persistentVolumeClaim") or volume.get("ephemeral")]
    return [
        {"name": volume["name"], "ephemeral": {"volumeClaimTemplate": {}}}
        if volume.get("ephemeral")
        else {
            "name": volume["name"],
            "persistentVolumeClaim": {"claimName": volume["persistentVolumeClaim"]["claimName"]},
        }
        for volume in found
    ]
