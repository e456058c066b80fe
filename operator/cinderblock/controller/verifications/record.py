"""Write what a verification has found into a VolumeBackup."""

from __future__ import annotations

from typing import Any

from cinderblock.api.meta import Model
from cinderblock.api.v1alpha1.verification import PartsRead, VerificationSummary
from cinderblock.errors import NotFound
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient
from cinderblock.lifecycle.actions import RecordVerification


async def record_summary(kube: KubeClient, namespace: str, action: RecordVerification) -> None:
    """Write status.verification by merge patch, which leaves all other fields to the reconciliation of the backup.

    Raises Conflict if the VolumeBackup has changed since it was read. One that is gone needs no record.
    """
    metadata = {"resourceVersion": action.resource_version}
    patch = {"metadata": metadata, "status": {"verification": patch_of(action.summary)}}
    try:
        await kube.merge_patch(kinds.VOLUME_BACKUP, action.name, namespace, patch, subresource="status")
    except NotFound:
        return


def patch_of(summary: VerificationSummary) -> dict[str, Any]:
    """Return a merge patch that replaces the whole summary: fields without a value are removed."""
    patch = _with_nulls(summary)
    if summary.parts is not None:
        patch["parts"] = _with_nulls(summary.parts)
    return patch


def _with_nulls(model: VerificationSummary | PartsRead) -> dict[str, Any]:
    fields: type[Model] = type(model)
    names = (info.alias or name for name, info in fields.model_fields.items())
    return dict.fromkeys(names) | model.to_wire()
