"""What a manifest keeps of the cluster that its volume comes from, so that the volume can be made again elsewhere.

Readers must not rely on any of it: manifests of earlier versions have none, and people edit labels.
"""

from __future__ import annotations

from enum import StrEnum

from cinderblock.api.meta import Model


class Consistency(StrEnum):
    """What was copied. A manifest may hold other words of later versions."""

    SNAPSHOT = "snapshot"
    """A snapshot of the volume: its state at one instant, as after a crash."""
    LIVE = "live"
    """The volume itself."""


class ClaimFacts(Model):
    """What the PersistentVolumeClaim said."""

    labels: dict[str, str] = {}
    """Labels of the claim, except those by which a tool manages it."""
    annotations: dict[str, str] = {}
    """Annotations of the claim, except those that a tool or Kubernetes itself has written."""
    left_out: list[str] = []
    """Keys of labels and annotations that were too large to be kept."""
    requested_size: str | None = None
    """spec.resources.requests.storage, as it was written."""
    volume_attributes_class: str | None = None
    """spec.volumeAttributesClassName."""
    stateful_set: str | None = None
    """The StatefulSet that the claim belongs to."""
    ordinal: int | None = None
    """The number of the pod that the claim belongs to."""


class DriverFacts(Model):
    """The CSI volume that the claim was bound to."""

    name: str
    """The CSI driver."""
    volume_handle: str = ""
    """The driver's id of the volume."""
    fs_type: str = ""
    """The filesystem that was asked for; empty: the driver's default, or none."""


class ClusterFacts(Model):
    """The cluster that made the backup."""

    uid: str
    """UID of the namespace kube-system, which is as old as the cluster."""
    release: str = ""
    """Name of the Helm release of the operator."""
