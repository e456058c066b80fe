"""ClusterBackupStores and what belongs to them, with usual values as defaults."""

from __future__ import annotations

from typing import Any, Final

from cinderblock.api.meta import Object
from cinderblock.api.v1alpha1.cluster_store import ClusterBackupStore, SharedStore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.lifecycle.store import shared

SYSTEM: Final = "cinderblock-system"
"""The namespace of the operator, with the Secrets."""


def a_cluster_store(name: str = "shared", **spec: Any) -> ClusterBackupStore:
    """Return a ClusterBackupStore that all namespaces may use. The keyword ``metadata`` and ``status`` add to these."""
    metadata = {"name": name, "uid": f"u-{name}", "generation": 1} | spec.pop("metadata", {})
    status = spec.pop("status", {})
    fields = {"credentialsSecretRef": {"name": "s3"}, "allowedNamespaces": {"from": "All"}} | spec
    return ClusterBackupStore.model_validate({"metadata": metadata, "spec": fields, "status": status})


def a_namespace(name: str = "shop", uid: str = "", labels: dict[str, str] | None = None, **metadata: Any) -> Object:
    """Return a Namespace."""
    return Object.model_validate(
        {"metadata": {"name": name, "uid": uid or f"u-{name}", "labels": labels or {}} | metadata}
    )


def a_backup_store(namespace: str = "shop", name: str = "shared", **spec: Any) -> BackupStore:
    """Return the BackupStore of a ClusterBackupStore. The keywords ``metadata`` and ``status`` add to these."""
    metadata = {"name": name, "namespace": namespace, "uid": f"s-{namespace}", "resourceVersion": "7"}
    metadata |= spec.pop("metadata", {})
    status = spec.pop("status", {})
    fields = {"clusterStoreRef": {"name": "shared"}} | spec
    return BackupStore.model_validate({"metadata": metadata, "spec": fields, "status": status})


def a_shared_store(namespace: str = "shop", **spec: Any) -> SharedStore:
    """Return the BackupStore of a namespace with the settings of its ClusterBackupStore."""
    own = a_backup_store(namespace)
    return shared.share(a_cluster_store(**spec), own, a_namespace(namespace), SYSTEM)
