"""Questions that need more than one field of more than one object. Plain dicts in, plain dicts out.

Each look-up is a read of the client and a pure choice among what was read; the choice can be used alone on objects
that the caller has at hand already.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import (
    EVENT,
    POD,
    PVC,
    STORAGE_CLASS,
    VOLUME_ATTACHMENT,
    VOLUME_SNAPSHOT_CLASS,
    Kind,
)
from cinderblock.model.cluster import DEFAULT_SNAPSHOT_CLASS_ANNOTATION, DEFAULT_STORAGE_CLASS_ANNOTATION

_ENDED: Final = ("Succeeded", "Failed")

JsonObject = dict[str, Any]


async def default_snapshot_class(client: KubeClient, driver: str) -> JsonObject | None:
    """The VolumeSnapshotClass for volumes of ``driver``; None: there is none, or snapshots are not installed."""
    if not await client.serves(VOLUME_SNAPSHOT_CLASS):
        return None
    return choose_snapshot_class(await client.list(VOLUME_SNAPSHOT_CLASS), driver)


def choose_snapshot_class(classes: Iterable[JsonObject], driver: str) -> JsonObject | None:
    """The driver's default class, else its only class. Of several defaults the newest, as for StorageClasses.

    The snapshot controller itself refuses several defaults (external-snapshotter ``SetDefaultSnapshotClass``); naming
    one of them in the VolumeSnapshot is how a backup goes on nevertheless.
    """
    own = [item for item in classes if item.get("driver") == driver]
    default = newest(item for item in own if _annotation(item, DEFAULT_SNAPSHOT_CLASS_ANNOTATION) == "true")
    if default is not None:
        return default
    return own[0] if len(own) == 1 else None


async def default_storage_class(client: KubeClient) -> JsonObject | None:
    """The cluster's default StorageClass: the newest, if several are (Kubernetes does so since 1.26)."""
    classes = await client.list(STORAGE_CLASS)
    return newest(item for item in classes if _annotation(item, DEFAULT_STORAGE_CLASS_ANNOTATION) == "true")


def newest(items: Iterable[JsonObject]) -> JsonObject | None:
    """The object that was created last; of several the first in order of name; None of none."""
    ordered = sorted(items, key=lambda item: str(item["metadata"].get("name", "")))
    return max(ordered, key=lambda item: str(item["metadata"].get("creationTimestamp", "")), default=None)


async def pods_using_claim(client: KubeClient, namespace: str, claim: str) -> list[JsonObject]:
    """Pods that use a PersistentVolumeClaim, or will as soon as they are scheduled; ended ones do not count."""
    pods = await client.list(POD, namespace, fields="status.phase!=Succeeded,status.phase!=Failed")
    return [pod for pod in pods if uses_claim(pod, claim)]


def uses_claim(pod: JsonObject, claim: str) -> bool:
    """Whether a pod that has not ended names ``claim``."""
    return pod.get("status", {}).get("phase") not in _ENDED and names_claim(pod, claim)


def names_claim(pod: JsonObject, claim: str) -> bool:
    """Whether a pod names ``claim``, directly or as the claim of an ephemeral volume.

    The claim of an ephemeral volume is called ``<pod>-<volume>`` (core/v1 EphemeralVolumeSource).
    """
    return any(_claim_of(pod, volume) == claim for volume in pod.get("spec", {}).get("volumes") or ())


async def attachments_of(client: KubeClient, volume: str) -> list[JsonObject]:
    """VolumeAttachments of a PersistentVolume, by its name: on which nodes it is attached, or about to be."""
    attachments = await client.list(VOLUME_ATTACHMENT)
    return [item for item in attachments if item["spec"].get("source", {}).get("persistentVolumeName") == volume]


async def newest_warning(client: KubeClient, namespace: str, uid: str) -> str:
    """Note of the newest Warning Event about the object with this UID; empty if there is none."""
    events = await client.list(EVENT, namespace, fields=f"regarding.uid={uid},type=Warning")
    found = newest(events)
    return str(found.get("note", "")) if found else ""


async def find_claim(client: KubeClient, namespace: str, reference: str) -> JsonObject | None:
    """The PersistentVolumeClaim that ``reference`` names: its UID or its name; a UID wins."""
    return await find_by_reference(client, PVC, namespace, reference)


async def find_by_reference(client: KubeClient, kind: Kind, namespace: str, reference: str) -> JsonObject | None:
    """The object of ``namespace`` that has ``reference`` as its UID, else as its name; None: there is none.

    A reference that looks like a UID costs a list, since the API server cannot select by UID; a name costs one read.
    """
    if not _looks_like_uid(reference):
        return await client.get(kind, reference, namespace)
    items = await client.list(kind, namespace)
    by_name = (item for item in items if item["metadata"].get("name") == reference)
    return next((item for item in items if item["metadata"].get("uid") == reference), None) or next(by_name, None)


def _claim_of(pod: JsonObject, volume: JsonObject) -> str | None:
    """Name of the claim behind a pod's volume, if there is one."""
    if volume.get("ephemeral"):
        return f"{pod['metadata']['name']}-{volume['name']}"
    claim = volume.get("persistentVolumeClaim")
    return str(claim["claimName"]) if claim else None


def _annotation(item: JsonObject, key: str) -> str:
    return str((item["metadata"].get("annotations") or {}).get(key, ""))


def _looks_like_uid(text: str) -> bool:
    """Whether ``text`` has the shape of a UUID, which a name may have as well."""
    parts = text.split("-")
    return [len(part) for part in parts] == [8, 4, 4, 4, 12] and all(c in "0123456789abcdef" for c in "".join(parts))
