"""Who the caller is, as the API server knows them."""

from __future__ import annotations

from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import SELF_SUBJECT_REVIEW


async def user_name(kube: KubeClient) -> str:
    """The caller's name: ``system:serviceaccount:shop:alice``. Raises AccessDenied (Unauthorized) for a bad token."""
    status = await kube.create_review(SELF_SUBJECT_REVIEW, {})
    return str(status.get("userInfo", {}).get("username", ""))
