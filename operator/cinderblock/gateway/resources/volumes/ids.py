"""Ids of volumes: a PersistentVolumeClaim's UID, or of a restored one the id that was told before there was a claim."""

from __future__ import annotations

from cinderblock.api import labels
from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.quantity import to_gib
from cinderblock.errors import AccessDenied
from cinderblock.gateway.resources.parse import parse_all
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import PVC


def volume_id(claim: PersistentVolumeClaim) -> str:
    """Cinder's id of the volume behind a claim."""
    return claim.metadata.annotations.get(labels.VOLUME_ID_ANNOTATION) or claim.uid


async def find_claim(kube: KubeClient, project: str, identifier: str) -> PersistentVolumeClaim | None:
    """The claim with this id; None: there is none. A UID wins over an id that an annotation claims.

    It is a list, since the API server can select claims neither by UID nor by annotation.
    """
    claims = parse_all(PersistentVolumeClaim, await kube.list(PVC, project))
    by_uid = next((claim for claim in claims if claim.uid == identifier), None)
    return by_uid or next((claim for claim in claims if volume_id(claim) == identifier), None)


async def sizes_in_gib(kube: KubeClient, project: str) -> dict[str, int]:
    """GiB of each volume, rounded up, by the UID and by the name of its claim. A caller who may not look gets none."""
    try:
        claims = parse_all(PersistentVolumeClaim, await kube.list(PVC, project))
    except AccessDenied:
        return {}
    return {key: to_gib(claim.capacity_bytes) for claim in claims for key in (claim.name, claim.uid)}
