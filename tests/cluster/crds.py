"""The CustomResourceDefinitions of other projects that the cluster serves, from the modules that pin their versions."""

from pathlib import Path

from tests.cluster import golang

_FOLDER = "csi-sidecars"


def snapshots() -> list[Path]:
    """Return the files that define VolumeSnapshots, their contents and classes."""
    return sorted(_files("external-snapshotter/client/v8").glob("snapshot.storage.k8s.io_*.yaml"))


def snapshot_metadata() -> list[Path]:
    """Return the file that defines SnapshotMetadataServices."""
    return sorted(_files("external-snapshot-metadata/client").glob("cbt.storage.k8s.io_*.yaml"))


def _files(module: str) -> Path:
    return golang.module_directory(_FOLDER, f"github.com/kubernetes-csi/{module}") / "config" / "crd"
