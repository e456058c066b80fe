"""What must be true when a test has ended: nothing of ours is left, neither in the cluster nor in the store."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from tests.cluster import cluster, storage
from tests.support.cluster.cluster import Lab, Object
from tests.support.cluster.namespaces import Tenant
from tests.support.store.objects_in_store import EmbeddedStore

ENDED = ("available", "error", "error_restoring")


def check(tenant: Tenant) -> None:
    """Ended operations have left nothing behind, no secret was shown, and deleting everything leaves nothing."""
    if tenant.is_gone:
        return
    _ended_operations_are_clean(tenant)
    assert not tenant.exposed_secrets()
    tenant.kubectl("delete", "volumerestores,volumebackups", "--all", "--timeout=120s")
    tenant.wait_until("nothing left of what the operator made", lambda: not tenant.children(), timeout=60)
    left = tenant.keys()
    assert left == tenant.kept, f"left in the store: {sorted(left - tenant.kept)}; gone: {sorted(tenant.kept - left)}"
    empty(tenant)


def empty(tenant: Tenant) -> None:
    """Remove what a test has left in the store on purpose."""
    if tenant.kept:
        store = EmbeddedStore.of(tenant.lab, tenant.name)
        with store.opened(tenant.lab) as opened:
            opened.delete(sorted(tenant.kept))


def _ended_operations_are_clean(tenant: Tenant) -> None:
    found = json.loads(tenant.kubectl("get", "volumebackups,volumerestores", "-o", "json"))["items"]
    for item in found:
        if item.get("status", {}).get("phase") in ENDED:
            what = f"nothing left of {item['metadata']['name']}, which has ended"
            tenant.wait_until(what, partial(_is_childless, tenant, item["metadata"]["uid"]), timeout=60)


def _is_childless(tenant: Tenant, uid: str) -> bool:
    return not tenant.children(uid)


@dataclass
class Graveyard:
    """Namespaces that are being deleted, while other tests go on.

    Attributes:
        names: of the namespaces.
        is_excused: whether a PersistentVolume may stay, since something else than what is tested keeps it.
    """

    lab: Lab
    names: list[str] = field(default_factory=list)
    is_excused: Callable[[Object], bool] = lambda _: False

    def bury(self, tenant: Tenant) -> None:
        """Delete a tenant's namespace; `check` looks later whether it went."""
        self.names.append(tenant.name)
        self.lab.kubectl("delete", "namespace", tenant.name, "--wait=false", "--ignore-not-found")

    def check(self) -> None:
        """All of them are gone, with every volume, snapshot and loop device."""
        self.lab.wait_until("end of the tests' namespaces", lambda: not self._namespaces(), timeout=180)
        self.lab.wait_until(
            "end of the tests' volumes and snapshots", lambda: not self.remains(), timeout=60, details=self._tell
        )
        if self.lab.is_own:
            self.lab.wait_until("end of loop devices", lambda: not self._orphans(), timeout=60, details=self._tell)

    def remains(self) -> list[str]:
        """PersistentVolumes and VolumeSnapshotContents of the namespaces, mounted or not."""
        volumes = [volume for volume in self.lab.items("persistentvolumes") if not self.is_excused(volume)]
        contents = self.lab.items("volumesnapshotcontents")
        owners = [(item, item["spec"].get("claimRef") or {}) for item in volumes]
        owners += [(item, item["spec"]["volumeSnapshotRef"]) for item in contents]
        return [item["metadata"]["name"] for item, owner in owners if owner.get("namespace") in self.names]

    def _namespaces(self) -> list[str]:
        return [
            item["metadata"]["name"] for item in self.lab.items("namespaces") if item["metadata"]["name"] in self.names
        ]

    def _orphans(self) -> list[str]:
        """Loop devices of the test drivers whose volume is no more."""
        known = [item["spec"].get("csi", {}).get("volumeHandle", "-") for item in self.lab.items("persistentvolumes")]
        return [file for file in loop_files() if not any(handle in file for handle in known)]

    def _tell(self) -> str:
        remains = self.remains()
        loops = self._orphans() if self.lab.is_own else "-"
        objects = self.lab.kubectl("get", "persistentvolumes,volumesnapshotcontents", "-o", "yaml", check=False)
        events = self.lab.kubectl("get", "events", "-A", "--field-selector=type=Warning", check=False)
        return f"volumes and snapshots: {remains}; loop devices: {loops}\n{objects[-8000:]}\n{events[-4000:]}"


def loop_files() -> list[str]:
    """Files of our test drivers that loop devices are attached to."""
    listed = subprocess.run(["losetup", "--list", "--json"], check=True, capture_output=True, text=True).stdout
    devices = json.loads(listed or '{"loopdevices": []}')["loopdevices"]
    folders = tuple(str(driver.data(cluster.running())) for driver in storage.DRIVERS)
    return [device["back-file"] for device in devices if device["back-file"].startswith(folders)]
