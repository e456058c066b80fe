"""Two namespaces share the store of an administrator: both get their data back, and neither reaches the other's.

No key of the store ever enters the namespaces. The tests of this file run in their order, on the same backups: the
last one takes the store away from a namespace.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from tests.e2e.conftest import TenantMaker
from tests.support.cluster.cluster import KubeCluster, Object
from tests.support.cluster.intrusion import (
    Loot,
    Place,
    attempts_on,
    intrude,
    permitted,
    start_intruder,
    steal,
    was_refused,
)
from tests.support.cluster.namespaces import Account, Tenant
from tests.support.cluster.recorder import BROKER
from tests.support.cluster.secret_scan import SecretScanner, forms
from tests.support.cluster.shared_store import SharedStore
from tests.support.cluster.workloads import Mount, OneShotPod, claim, compare_trees, finish_pod

# The first test also waits for the release and for four backups.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SLOW = 1 << 20
"""Bytes a second of each upload: the attacked mover has to run for some seconds."""
ADDED = 24 << 20
"""Bytes that the attacked mover uploads: on a busy machine, the attacks take longer than 8 s."""
READABLE = "configmaps,secrets,pods,jobs,events,persistentvolumeclaims,backupstores,volumebackups,volumerestores"
"""Objects that the owner of a namespace may read there."""
TOKEN_SECONDS = 75
"""The broker checks a mover again after a minute."""


@dataclass
class Neighbours:
    """Two namespaces with a full and an incremental backup each, and what an intruder in the first one has done.

    Attributes:
        shop: the namespace with the intruder.
        bank: the other one.
        loot: what the intruder found in the pod of shop's second mover.
        bucket: URL of the bucket.
        own: the full backup of shop.
        allowed: results of what that mover may do.
        attacks: results of what it must not be able to do.
    """

    store: SharedStore
    shop: Tenant
    bank: Tenant
    loot: Loot
    bucket: str
    own: Place
    allowed: dict[str, dict[str, Any]]
    attacks: dict[str, dict[str, Any]]

    @property
    def both(self) -> tuple[Tenant, Tenant]:
        """Both namespaces."""
        return self.shop, self.bank


@pytest.fixture(scope="module")
def store(kube: KubeCluster, release: Account, scanner: SecretScanner) -> Iterator[SharedStore]:
    """Create a shared store. At the end, nothing of it may be left."""
    made = SharedStore.named(kube, release, "shared")
    made.create(uploadBytesPerSecond=SLOW)
    scanner.learn()
    yield made
    left = made.keys()
    made.delete()
    release.purge(kube, made.name)
    assert left == set()


@pytest.fixture(scope="module")
def neighbours(store: SharedStore, make_shared_tenant: TenantMaker) -> Neighbours:
    """Let two namespaces use the store and make their backups, and intrude from the mover of the last one."""
    shop, bank = (make_shared_tenant(labels=store.label, has_store=False) for _ in range(2))
    for tenant in (shop, bank):
        tenant.secrets.append(store.key)
        tenant.prefix = f"{store.name}/{tenant.name}/{_uid(store.kube.get('namespace', tenant.name))}"
        store.kube.apply(claim(store.kube, tenant.name, "files"), _writer(tenant, "make --seed 1"))
    start_intruder(shop)
    assert [tenant.kube.get("backupstore", store.name, tenant.name) for tenant in (shop, bank)] == [None, None]
    store.allow_labelled()

    for tenant in (shop, bank):
        finish_pod(tenant.kube, tenant.name, "write")
        tenant.wait_until("BackupStore", partial(tenant.kube.get, "backupstore", store.name, tenant.name))
        tenant.says(f"backupstore/{store.name}", "Answers")
        tenant.kube.apply(tenant.backup("full", "files"))
    for tenant, more in ((shop, f"; head -c {ADDED} /dev/urandom > /volume/more"), (bank, "")):
        tenant.ends("volumebackup/full")
        tenant.kube.apply(_writer(tenant, "edit --seed 2", more))
        finish_pod(tenant.kube, tenant.name, "write")
    own, other = (_place(store, tenant) for tenant in (shop, bank))

    for tenant in (shop, bank):
        tenant.kube.apply(tenant.backup("monday", "files", incremental=True))
    loot = steal(shop, _uid(shop.get("volumebackup", "monday")))
    bucket = f"{store.account.endpoint_url}/{store.account.container}"
    tried = permitted(bucket, own), attempts_on(bucket, own, other)
    allowed, attacks = intrude(shop, loot, *tried)
    assert shop.get("volumebackup", "monday")["status"]["phase"] == "creating", "the mover ended before the attacks"
    for tenant in (shop, bank):
        tenant.ends("volumebackup/monday")
    return Neighbours(store, shop, bank, loot, bucket, own, allowed, attacks)


def _writer(tenant: Tenant, what: str, more: str = "") -> Object:
    """Return a pod that makes or edits the tree of a tenant."""
    verb, _, options = what.partition(" ")
    command = ("sh", "-c", f"python3 /tools/trees.py {verb} /volume/tree {options}{more}")
    return OneShotPod("write", command, (Mount("files", "/volume"),)).manifest(tenant.kube, tenant.name)


def _uid(item: Object | None) -> str:
    assert item is not None
    return str(item["metadata"]["uid"])


def _place(store: SharedStore, tenant: Tenant) -> Place:
    """Return where the full backup of a tenant is."""
    status = tenant.get("volumebackup", "full")["status"]
    packs = f"{tenant.prefix}/packs/{status['volumeId']}/{status['id']}/"
    pack = next(key for key in sorted(tenant.keys()) if key.startswith(packs))
    return Place(
        tenant.prefix, status["volumeId"], status["manifestKey"], pack, store.wrapped_key(status["manifestKey"])
    )


def test_both_namespaces_get_every_byte_back(neighbours: Neighbours) -> None:
    bank = neighbours.bank
    for tenant in neighbours.both:
        tenant.kube.apply(tenant.restore("back", "monday", name="restored"))
    bank.kube.apply(_verification(bank, "all"))
    for tenant in neighbours.both:
        full, monday = (tenant.get("volumebackup", name)["status"] for name in ("full", "monday"))
        assert (full["sealed"], monday["sealed"]) == (True, True)
        assert monday["parentId"] == full["id"]
        assert full["manifestKey"].startswith(f"{tenant.prefix}/backups/")
        tenant.ends("volumerestore/back")
        assert compare_trees(tenant.kube, tenant.name, "files", "restored") == []
    bank.reaches("backupverification/all", "verified")


def _verification(tenant: Tenant, name: str) -> Object:
    kind = {"apiVersion": "cinderblock.io/v1alpha1", "kind": "BackupVerification"}
    spec = {"level": "Data", "volumeId": "files"}
    return kind | {"metadata": {"name": name, "namespace": tenant.name}, "spec": spec}


def test_no_key_of_the_store_enters_a_namespace(neighbours: Neighbours) -> None:
    keys = (neighbours.store.key, neighbours.store.account.secret_key)
    for tenant in neighbours.both:
        seen = tenant.recorder.text_of(tenant.name)
        assert all(part in seen for part in ('"kind":"Job"', '"kind":"Pod"', "CINDERBLOCK_TASK", "bytesDone"))
        assert '"audience":"cinderblock-broker"' in seen
        assert '"secret":{' not in seen
        readable = tenant.kubectl("get", READABLE, "-o", "yaml")
        places = {"movers": seen, "objects": readable, "the broker's log": tenant.recorder.text_of(BROKER)}
        assert [place for place, text in places.items() for key in keys if _shows(text, key)] == []
        assert tenant.exposed_secrets() == []
    assert neighbours.loot.files == ["broker"]
    assert not any(_shows(str(neighbours.loot.task), key) for key in keys)


def _shows(text: str, secret: str) -> bool:
    return any(form in text for form in forms(secret))


def test_intruder_reaches_nothing_of_the_other_namespace(neighbours: Neighbours) -> None:
    # The program of the intruder works: the same requests succeed for the mover's own volume.
    assert {name: result for name, result in neighbours.allowed.items() if was_refused(result)} == {}
    assert {result["status"] or result["broker"] for result in neighbours.allowed.values()} == {200}
    assert len(neighbours.attacks) > 20
    assert {name: result for name, result in neighbours.attacks.items() if not was_refused(result)} == {}
    assert neighbours.attacks["read their pack"]["reason"] == "NotGranted"


def test_grant_lets_the_other_namespace_restore_one_backup(neighbours: Neighbours) -> None:
    shop, bank = neighbours.both
    bank.kube.apply(bank.restore("given", "full", name="given", backupNamespace=shop.name))
    assert "No BackupGrant" in bank.says("volumerestore/given", "NotGranted")
    kind = {"apiVersion": "cinderblock.io/v1alpha1", "kind": "BackupGrant"}
    spec = {"backups": {"names": ["full"]}, "to": {"namespaces": [bank.name]}}
    shop.kube.apply(kind | {"metadata": {"name": "to-bank", "namespace": shop.name}, "spec": spec})
    bank.ends("volumerestore/given")
    assert bank.get("volumerestore", "given")["status"]["backupNamespace"] == shop.name
    shop.says("backupgrant/to-bank", "Granted")
    shop.wait_until("end of the record", lambda: "grantedRestores" not in _without_empty(shop, "full"))


def _without_empty(tenant: Tenant, backup: str) -> Object:
    status = tenant.get("volumebackup", backup)["status"]
    return {name: value for name, value in status.items() if value}


def test_stolen_token_ends_with_its_operation(neighbours: Neighbours) -> None:
    attempts = permitted(neighbours.bucket, neighbours.own)

    def seen() -> bool:
        [results] = intrude(neighbours.shop, neighbours.loot, attempts)
        return all(result["broker"] in (401, 403) for result in results.values())

    neighbours.shop.wait_until("end of the token", seen, timeout=TOKEN_SECONDS)


def test_withdrawn_label_leaves_only_deletion(neighbours: Neighbours) -> None:
    shop, bank, store = neighbours.shop, neighbours.bank, neighbours.store
    before = bank.keys()
    shop.kube.kubectl("label", "namespace", shop.name, f"{store.name}-")
    late = shop.backup("late", "files"), shop.restore("late", "monday", name="late"), _verification(shop, "late")
    shop.kube.apply(*late)
    for operation in ("volumebackup/late", "volumerestore/late", "backupverification/late"):
        assert "allowedNamespaces" in shop.says(operation, "StoreNotAllowed")
    assert shop.kube.get("pvc", "late", shop.name) is None
    shop.says(f"backupstore/{store.name}", "StoreNotAllowed")

    shop.delete("volumebackup/monday", "volumebackup/full", "volumebackup/late")
    assert shop.keys() == set()
    assert bank.keys() == before
    bank.says(f"backupstore/{store.name}", "Answers")
