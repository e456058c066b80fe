"""Check after a test that it has left nothing in the cluster or in the store."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from tests.cluster import cluster, storage
from tests.support.cluster.cluster import KubeCluster, Object
from tests.support.cluster.namespaces import Tenant
from tests.support.store.objects_in_store import EmbeddedStore

ENDED = ("available", "error", "error_restoring", "verified", "damaged")


def check(tenant: Tenant) -> None:
    """Check that ended operations have left nothing behind, that no secret was exposed, and that deletion removes
    everything.
    """
    if tenant.is_gone:
        return
    _ended_operations_are_clean(tenant)
    assert not tenant.exposed_secrets()
    tenant.kubectl("delete", "backupverifications,volumerestores,volumebackups", "--all", "--timeout=120s")
    tenant.wait_until("nothing left of what the operator made", lambda: not tenant.children(), timeout=60)
    left = tenant.keys()
    assert left == tenant.kept, f"left in the store: {sorted(left - tenant.kept)}; gone: {sorted(tenant.kept - left)}"
    empty(tenant)


def empty(tenant: Tenant) -> None:
    """Remove what a test has left in the store on purpose."""
    if tenant.kept:
        store = EmbeddedStore.of(tenant.kube, tenant.name)
        with store.opened(tenant.kube) as opened:
            opened.delete(sorted(tenant.kept))


def _ended_operations_are_clean(tenant: Tenant) -> None:
    found = json.loads(tenant.kubectl("get", "volumebackups,volumerestores,backupverifications", "-o", "json"))["items"]
    for item in found:
        if item.get("status", {}).get("phase") in ENDED:
            what = f"nothing left of {item['metadata']['name']}, which has ended"
            tenant.wait_until(what, partial(_is_childless, tenant, item["metadata"]["uid"]), timeout=60)


def _is_childless(tenant: Tenant, uid: str) -> bool:
    return not tenant.children(uid)


@dataclass
class DeletedNamespaces:
    """Namespaces that are being deleted while other tests run.

    Attributes:
        names: of the namespaces.
        is_excused: whether a PersistentVolume may stay, since something else than what is tested keeps it.
    """

    kube: KubeCluster
    names: list[str] = field(default_factory=list)
    is_excused: Callable[[Object], bool] = lambda _: False

    def delete(self, tenant: Tenant) -> None:
        """Delete a tenant's namespace. `check` verifies the end of the deletion later."""
        self.names.append(tenant.name)
        self.kube.kubectl("delete", "namespace", tenant.name, "--wait=false", "--ignore-not-found")

    def check(self) -> None:
        """Check that all of them are gone, with every volume, snapshot and loop device."""
        self.kube.wait_until("end of the tests' namespaces", lambda: not self._namespaces(), timeout=180)
        self.kube.wait_until(
            "end of the tests' volumes and snapshots", lambda: not self.remains(), timeout=60, details=self._describe
        )
        if self.kube.is_own:
            self.kube.wait_until("end of loop devices", lambda: not self._orphans(), timeout=60, details=self._describe)

    def remains(self) -> list[str]:
        """Return the names of PersistentVolumes and VolumeSnapshotContents of the namespaces."""
        volumes = [volume for volume in self.kube.items("persistentvolumes") if not self.is_excused(volume)]
        contents = self.kube.items("volumesnapshotcontents")
        owners = [(item, item["spec"].get("claimRef") or {}) for item in volumes]
        owners += [(item, item["spec"]["volumeSnapshotRef"]) for item in contents]
        return [item["metadata"]["name"] for item, owner in owners if owner.get("namespace") in self.names]

    def _namespaces(self) -> list[str]:
        return [
            item["metadata"]["name"] for item in self.kube.items("namespaces") if item["metadata"]["name"] in self.names
        ]

    def _orphans(self) -> list[str]:
        """Return loop devices of the test drivers whose volume no longer exists."""
        known = [item["spec"].get("csi", {}).get("volumeHandle", "-") for item in self.kube.items("persistentvolumes")]
        return [file for file in loop_files() if not any(handle in file for handle in known)]

    def _describe(self) -> str:
        remains = self.remains()
        loops = self._orphans() if self.kube.is_own else "-"
        objects = self.kube.kubectl("get", "persistentvolumes,volumesnapshotcontents", "-o", "yaml", check=False)
        events = self.kube.kubectl("get", "events", "-A", "--field-selector=type=Warning", check=False)
        return f"volumes and snapshots: {remains}; loop devices: {loops}\n{objects[-8000:]}\n{events[-4000:]}"


def loop_files() -> list[str]:
    """Return the files of our test drivers to which loop devices are attached."""
    listed = subprocess.run(["losetup", "--list", "--json"], check=True, capture_output=True, text=True).stdout
    devices = json.loads(listed or '{"loopdevices": []}')["loopdevices"]
    folders = tuple(str(driver.data(cluster.running())) for driver in storage.DRIVERS)
    return [device["back-file"] for device in devices if device["back-file"].startswith(folders)]
