"""Questions that need more than one field of more than one object. Plain dicts in, plain dicts out.

Most are pure choices among objects that the caller has read; where it depends on the question what has to be read, it
is read here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import ENDED_POD_PHASES, EVENT, PVC, Kind

JsonObject = dict[str, Any]


def newest(items: Iterable[JsonObject]) -> JsonObject | None:
    """The object that was created last; of several the first in order of name; None of none."""
    ordered = sorted(items, key=lambda item: str(item["metadata"].get("name", "")))
    return max(ordered, key=lambda item: str(item["metadata"].get("creationTimestamp", "")), default=None)


def uses_claim(pod: JsonObject, claim: str) -> bool:
    """Whether a pod that has not ended names ``claim``."""
    return pod.get("status", {}).get("phase") not in ENDED_POD_PHASES and names_claim(pod, claim)


def names_claim(pod: JsonObject, claim: str) -> bool:
    """Whether a pod names ``claim``, directly or as the claim of an ephemeral volume.

    The claim of an ephemeral volume is called ``<pod>-<volume>`` (core/v1 EphemeralVolumeSource).
    """
    return any(_claim_of(pod, volume) == claim for volume in pod.get("spec", {}).get("volumes") or ())


def stateful_sets_of(claim: str, pods: Iterable[JsonObject]) -> list[str]:
    """Return names of StatefulSets that a claim may belong to, in order: their pods mount claims of the same template.

    Pod ``web-0`` of StatefulSet ``web`` mounts claim ``data-web-0``, so claim ``data-web-1`` is of that set too, even
    if pod ``web-1`` does not run (apps/v1 StatefulSet: claims are called ``<template>-<pod>``).
    """
    found = set()
    for pod in pods:
        name = pod["metadata"]["name"]
        owners = pod["metadata"].get("ownerReferences") or ()
        sets = [owner["name"] for owner in owners if owner.get("kind") == "StatefulSet" and owner.get("controller")]
        mounted = [_claim_of(pod, volume) or "" for volume in pod.get("spec", {}).get("volumes") or ()]
        templates = [text.removesuffix(f"-{name}") for text in mounted if text.endswith(f"-{name}")]
        found |= {owner for owner in sets for template in templates if claim.startswith(f"{template}-{owner}-")}
    return sorted(found)


def attachments_of(volume: str, attachments: Iterable[JsonObject]) -> list[JsonObject]:
    """Of all VolumeAttachments those of a PersistentVolume, by its name: where it is attached, or about to be."""
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


def _looks_like_uid(text: str) -> bool:
    """Whether ``text`` has the shape of a UUID, which a name may have as well."""
    parts = text.split("-")
    return [len(part) for part in parts] == [8, 4, 4, 4, 12] and all(c in "0123456789abcdef" for c in "".join(parts))
