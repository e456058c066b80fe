"""Facts about the origin of a volume in a manifest, from which the volume can be created in another cluster.

Readers must not rely on these facts: manifests of earlier versions have none, and users edit labels.
"""

from __future__ import annotations

from enum import StrEnum

from cinderblock.api.meta import Model


class Consistency(StrEnum):
    """Source of the copied data. Manifests of later versions may contain other values."""

    SNAPSHOT = "snapshot"
    """A snapshot, which has the state of the volume at one instant, as after a crash."""
    LIVE = "live"
    """The volume itself, while it was mounted by the mover."""


class ClaimFacts(Model):
    """Facts about the PersistentVolumeClaim."""

    labels: dict[str, str] = {}
    """Labels, except those of tools that manage the PersistentVolumeClaim."""
    annotations: dict[str, str] = {}
    """Annotations, except those that a tool or Kubernetes itself wrote."""
    left_out: list[str] = []
    """Keys of labels and annotations that were omitted because they are too large."""
    requested_size: str | None = None
    """Text of spec.resources.requests.storage."""
    volume_attributes_class: str | None = None
    """spec.volumeAttributesClassName."""
    stateful_set: str | None = None
    """Name of the StatefulSet that uses the PersistentVolumeClaim."""
    ordinal: int | None = None
    """Ordinal of the StatefulSet's pod that uses the PersistentVolumeClaim."""


class DriverFacts(Model):
    """Facts about the CSI volume behind the PersistentVolumeClaim."""

    name: str
    """Name of the CSI driver."""
    volume_handle: str = ""
    """Id of the volume in the driver."""
    fs_type: str = ""
    """Requested file system. Empty for the default of the driver, or for a volume without one."""


class ClusterFacts(Model):
    """Facts about the cluster that made the backup."""

    uid: str
    """UID of the namespace kube-system, which identifies the cluster."""
    release: str = ""
    """Name of the operator's Helm release."""
