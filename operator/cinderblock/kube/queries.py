"""Look-ups that need several fields or several objects. Plain dicts in, plain dicts out.

Most are pure choices among objects that the caller has read; the asynchronous ones read what they need.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import ENDED_POD_PHASES, EVENT, PVC, Kind
from cinderblock.kube.reduction import FURTHER_CLAIMS

JsonObject = dict[str, Any]

EVENT_LIMIT: Final = 1000
"""Events about one object from which the newest is chosen. Anybody in the namespace can create more."""


def newest(items: Iterable[JsonObject]) -> JsonObject | None:
    """Return the object that was created last; of several the first by name; None if there is no object."""
    ordered = sorted(items, key=lambda item: str(item["metadata"].get("name", "")))
    return max(ordered, key=lambda item: str(item["metadata"].get("creationTimestamp", "")), default=None)


def uses_claim(pod: JsonObject, claim: str) -> bool:
    """Return whether a pod that has not ended uses the PersistentVolumeClaim ``claim``."""
    return pod.get("status", {}).get("phase") not in ENDED_POD_PHASES and names_claim(pod, claim)


def used_claims(pod: JsonObject) -> set[str]:
    """Return the names of the PersistentVolumeClaims that a pod uses; none if it has ended."""
    if pod.get("status", {}).get("phase") in ENDED_POD_PHASES:
        return set()
    return {name for volume in pod.get("spec", {}).get("volumes") or () if (name := _claim_of(pod, volume))}


def names_claim(pod: JsonObject, claim: str) -> bool:
    """Return whether a pod names ``claim``, directly or as the claim of an ephemeral volume.

    The claim of an ephemeral volume is named ``<pod>-<volume>`` (core/v1 EphemeralVolumeSource). A reduced pod that had
    more claims than are kept may name any.
    """
    spec = pod.get("spec", {})
    return bool(spec.get(FURTHER_CLAIMS)) or any(
        _claim_of(pod, volume) == claim for volume in spec.get("volumes") or ()
    )


def stateful_sets_of(claim: str, pods: Iterable[JsonObject]) -> list[str]:
    """Return the sorted names of the StatefulSets whose pods mount claims of the same template as ``claim``.

    Pod ``web-0`` of StatefulSet ``web`` mounts claim ``data-web-0``, so claim ``data-web-1`` belongs to that set too,
    even if pod ``web-1`` does not run (apps/v1 StatefulSet: claims are named ``<template>-<pod>``).
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
    """Return the VolumeAttachments of a PersistentVolume: where it is attached, or will be."""
    return [item for item in attachments if item["spec"].get("source", {}).get("persistentVolumeName") == volume]


async def newest_warning(client: KubeClient, namespace: str, uid: str) -> str:
    """Return the note of the newest Warning Event about the object with this UID; empty if there is none.

    It reads at most EVENT_LIMIT Events.
    """
    found, count = None, 0
    async for page in client.pages(EVENT, namespace, fields=f"regarding.uid={uid},type=Warning"):
        found, count = newest([*([found] if found else []), *(page or ())]), count + len(page or ())
        if count >= EVENT_LIMIT:
            break
    return str(found.get("note", "")) if found else ""


async def find_claim(client: KubeClient, namespace: str, reference: str) -> JsonObject | None:
    """Return the PersistentVolumeClaim with the UID ``reference``, else the one with that name."""
    return await find_by_reference(client, PVC, namespace, reference)


async def find_by_reference(client: KubeClient, kind: Kind, namespace: str, reference: str) -> JsonObject | None:
    """Return the object of ``namespace`` with the UID ``reference``, else the one with that name, else None.

    A reference that looks like a UID costs a list as well, since the API server cannot select by UID.
    """
    if not looks_like_uid(reference):
        return await client.get(kind, reference, namespace)
    name: str | None = None
    async for page in client.pages(kind, namespace):
        by_uid = (item["metadata"]["name"] for item in page or () if item["metadata"].get("uid") == reference)
        name = next(by_uid, None)
        if name is not None:
            break
    # A list may hold reduced objects.
    found = await client.get(kind, name or reference, namespace)
    return found if found is None or name is None or found["metadata"]["uid"] == reference else None


def _claim_of(pod: JsonObject, volume: JsonObject) -> str | None:
    """Return the name of the claim behind a pod's volume, if there is one."""
    if volume.get("ephemeral"):
        return f"{pod['metadata']['name']}-{volume['name']}"
    claim = volume.get("persistentVolumeClaim")
    return str(claim["claimName"]) if claim else None


def looks_like_uid(text: str) -> bool:
    """Return whether ``text`` has the form of a UUID, which a name may have too."""
    parts = text.split("-")
    return [len(part) for part in parts] == [8, 4, 4, 4, 12] and all(c in "0123456789abcdef" for c in "".join(parts))
