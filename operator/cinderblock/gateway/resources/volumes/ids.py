"""Ids of volumes: the claim's UID, or for a restored volume the id that the caller got before the claim existed."""

from __future__ import annotations

from cinderblock.api import labels
from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.quantity import to_gib
from cinderblock.errors import AccessDenied
from cinderblock.gateway.resources.parse import parse_all
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import PVC


def volume_id(claim: PersistentVolumeClaim) -> str:
    """Return Cinder's id of the volume of a claim."""
    return claim.metadata.annotations.get(labels.VOLUME_ID_ANNOTATION) or claim.uid


async def find_claim(kube: KubeClient, project: str, identifier: str) -> PersistentVolumeClaim | None:
    """Return the claim with this id; None if there is none. A UID takes precedence over an id in an annotation.

    This lists all claims, because the API server can select them neither by UID nor by annotation.
    """
    claims = parse_all(PersistentVolumeClaim, await kube.list(PVC, project))
    by_uid = next((claim for claim in claims if claim.uid == identifier), None)
    return by_uid or next((claim for claim in claims if volume_id(claim) == identifier), None)


async def sizes_in_gib(kube: KubeClient, project: str) -> dict[str, int]:
    """Return volume sizes, rounded up, by UID and name of the claim; none if the caller may not list claims."""
    try:
        claims = parse_all(PersistentVolumeClaim, await kube.list(PVC, project))
    except AccessDenied:
        return {}
    return {key: to_gib(claim.capacity_bytes) for claim in claims for key in (claim.name, claim.uid)}
