"""A restore by a BackupGrant with the real broker: exactly one backup of the other namespace, and nothing else."""

from __future__ import annotations

import base64
import os
import random
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from cinderblock.api import labels, layout
from cinderblock.api.broker import CREDENTIALS_PATH, NEW_DATA_KEY_PATH, UNWRAP_PATH
from cinderblock.api.mover import MoverOperation
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.controller.context import Context
from cinderblock.controller.grants.record import record_granted_restores
from cinderblock.controller.reconcile.reconciler import Reconciler
from cinderblock.controller.request import ObjectKey
from cinderblock.controller.stores.pool import StorePool
from cinderblock.errors import Conflict
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.manifest.header import HEADER_BYTES, parse_header
from cinderblock.format.manifest.reader import read_packs
from cinderblock.format.pack import Origin, parse_pack_name
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient, connect
from cinderblock.kube.kinds import Kind
from cinderblock.kube.reduction import reduce_object
from cinderblock.lifecycle.actions import RecordGrantedRestores
from cinderblock.lifecycle.backup_grants import readers
from cinderblock.lifecycle.observed import MoverSettings, OperatorPolicy
from cinderblock.repository.objects import BackupRef
from cinderblock.store.base import ObjectStore
from cinderblock.store.factory import ignores_unsigned_headers
from cinderblock.store.s3.store import S3Store
from tests.contract.s3_server import S3Server, s3_server
from tests.integration.test_movers_and_broker import Namespace, Tasks
from tests.support.broker.brokers import Broker, broker_before
from tests.support.broker.tenants import (
    CLUSTER_STORE,
    Mover,
    Tenant,
    make_cluster_store,
    make_secrets,
    make_tenant,
)
from tests.support.mover.backups import LATER, VOLUME
from tests.support.mover.compare import compare_trees

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="trees have owners and devices"),
]

MIB = 1 << 20


@dataclass
class Scene:
    """The namespace with the backups, the one that restores, and what both use."""

    source: Namespace
    target: Tenant
    server: S3Server
    broker: Broker
    store: ObjectStore
    keys: KeyRing
    pods: Path

    @property
    def bucket(self) -> str:
        return f"{self.server.url}/bucket"

    async def back_up(self, folder: Path, parent: str | None = None) -> Mapping[str, Any]:
        """Return a backup of the source, as the operator records it."""
        made = await self.source.back_up(folder, parent)
        pins = self.source.tasks.pins[made["metadata"]["uid"]]
        return await self.record(made, storeName=CLUSTER_STORE, sealed=True, pins=pins.to_wire())

    async def record(self, backup: Mapping[str, Any], **status: Any) -> Mapping[str, Any]:
        return await self.source.tenant.set_status(kinds.VOLUME_BACKUP, backup, status)

    async def restore(self, backup: Mapping[str, Any], *, recorded: bool = True) -> Mover:
        """Return the mover of a restore in the other namespace, which the backup records or does not."""
        spec = {"backupId": backup["metadata"]["name"], "backupNamespace": self.source.tenant.namespace}
        owner = await self.target._operation(kinds.VOLUME_RESTORE, spec)
        uid, name = owner["metadata"]["uid"], owner["metadata"]["name"]
        status = {
            "id": uid,
            "phase": "restoring",
            "backupId": backup["metadata"]["uid"],
            "backupName": backup["metadata"]["name"],
            "backupNamespace": self.source.tenant.namespace,
        }
        if recorded:
            entry = {"namespace": self.target.namespace, "name": name, "uid": uid}
            await self.record(backup, grantedRestores=[entry])
        return await self.target.mover(kinds.VOLUME_RESTORE, owner, status)

    async def status_of(self, mover: Mover, method: str, path: str) -> int:
        """Return the status of a request to sign for an object, or for a listing that begins with a question mark."""
        url = f"{self.bucket}{path}" if path.startswith("?") else f"{self.bucket}/{path}"
        return (await self.broker.sign(mover.token, method, url)).status


@pytest.fixture
async def scene(kubeconfig: Path, client: KubeClient, tmp_path: Path) -> AsyncIterator[Scene]:
    system = f"system-{uuid.uuid4().hex[:8]}"
    with s3_server() as server:
        direct = S3Store(server.location("bucket", create_container=True), server.credentials)
        with closing(direct):
            direct.check()
            access, secret = server.credentials.access_key, server.credentials.secret_key
            keys = KeyRing(await make_secrets(client, system, access, secret), "2026")
            await make_cluster_store(client, server.url)
            async with broker_before(str(kubeconfig), system) as broker:
                tasks = Tasks(direct, keys)
                source = Namespace(await make_tenant(client), server, broker, tasks, tmp_path / "pods")
                tasks.prefix = source.tenant.prefix
                target = await make_tenant(client)
                yield Scene(source, target, server, broker, direct, keys, tmp_path / "pods")


async def test_mover_reads_one_backup_and_nothing_else(scene: Scene, tmp_path: Path) -> None:
    folder, copy = tmp_path / "source", tmp_path / "copy"
    folder.mkdir()
    copy.mkdir()
    for name, seed in (("kept", 1), ("changed", 2)):
        (folder / name).write_bytes(random.Random(seed).randbytes(30 * MIB))
    first = await scene.back_up(folder)
    (folder / "changed").write_bytes(random.Random(3).randbytes(30 * MIB))
    second = await scene.back_up(folder, first["metadata"]["uid"])
    later = await scene.back_up(folder)
    mover = await scene.restore(second)

    task = scene.source.tasks.task(
        MoverOperation.RESTORE, second["metadata"]["uid"], path=copy, data_timestamp=LATER, created_at=LATER
    )
    report = await scene.source.run(mover, task, lists=False)
    assert report.succeeded, report
    assert compare_trees(str(folder), str(copy), holes=True) == []

    await _check_packs(scene, mover, second)
    await _check_manifests(scene, mover, second, first, later)
    await _check_listings(scene, mover)
    await _check_keys(scene, mover, second, first)


async def _check_packs(scene: Scene, mover: Mover, granted: Mapping[str, Any]) -> None:
    """Every pack that the manifest lists can be read, and no other of the volume."""
    key = granted["status"]["manifestKey"]
    expected = BackupRef(key, VOLUME, granted["metadata"]["uid"]).expected(sealed=True)
    listed = read_packs(partial(scene.store.get, key), scene.keys, expected, key)
    permitted, refused = 0, 0
    for info in scene.store.list(f"{scene.source.tenant.prefix}/packs/"):
        _, backup_id, name = info.key.rsplit("/", 2)
        parsed = parse_pack_name(name)
        is_listed = parsed is not None and listed.has(Origin(backup_id, parsed[0]), parsed[1])
        assert await scene.status_of(mover, "GET", info.key) == (200 if is_listed else 403), info.key
        assert await scene.status_of(mover, "PUT", info.key) == 403
        assert await scene.status_of(mover, "DELETE", info.key) == 403
        permitted, refused = permitted + is_listed, refused + (not is_listed)
    assert permitted >= 2, "a pack of the ancestor and one of its own"
    assert refused >= 2, "a pack of the ancestor that is not used any more, and one of the later backup"


async def _check_manifests(scene: Scene, mover: Mover, granted: Mapping[str, Any], *others: Mapping[str, Any]) -> None:
    assert await scene.status_of(mover, "GET", granted["status"]["manifestKey"]) == 200
    for method in ("PUT", "DELETE"):
        assert await scene.status_of(mover, method, granted["status"]["manifestKey"]) == 403
    for other in others:
        assert await scene.status_of(mover, "GET", other["status"]["manifestKey"]) == 403
    own = layout.manifest_key(scene.target.prefix, VOLUME, granted["metadata"]["uid"])
    assert await scene.status_of(mover, "GET", own) == 403


async def _check_listings(scene: Scene, mover: Mover) -> None:
    prefix = scene.source.tenant.prefix
    for listed in (f"{prefix}/", f"{prefix}/packs/{VOLUME}/", f"{prefix}/backups/{VOLUME}/", f"{scene.target.prefix}/"):
        query = f"?list-type=2&max-keys=1&prefix={quote(listed, safe='')}"
        assert await scene.status_of(mover, "GET", query) == 403


async def _check_keys(scene: Scene, mover: Mover, granted: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """The data key of the granted backup opens, and no other one. Nothing makes keys or session credentials."""
    for backup, status in ((granted, 200), (other, 403)):
        body = {
            "volumeId": VOLUME,
            "backupId": backup["metadata"]["uid"],
            "wrapped": _wrapped(scene.store, backup["status"]["manifestKey"]),
        }
        assert (await scene.broker.ask(UNWRAP_PATH, body, mover.token)).status == status
    for path in (NEW_DATA_KEY_PATH, CREDENTIALS_PATH):
        assert (await scene.broker.ask(path, {}, mover.token)).status == 403


def _wrapped(store: ObjectStore, key: str) -> dict[str, str]:
    wrapped = parse_header(store.get(key, 0, HEADER_BYTES), key).wrapped
    assert wrapped is not None
    encoded = {
        name: base64.b64encode(part).decode() for name, part in (("salt", wrapped.salt), ("sealed", wrapped.sealed))
    }
    return {"keyId": wrapped.key_id} | encoded


async def test_status_of_the_target_alone_gives_nothing(scene: Scene, tmp_path: Path) -> None:
    """A forged status of a VolumeRestore is worth nothing without the record in the other namespace."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "file").write_bytes(b"content")
    backup = await scene.back_up(folder)
    key = backup["status"]["manifestKey"]
    forged = await scene.restore(backup, recorded=False)
    assert await scene.status_of(forged, "GET", key) == 403
    other = {"namespace": scene.target.namespace, "name": forged.owner["metadata"]["name"], "uid": str(uuid.uuid4())}
    elsewhere = {"namespace": "elsewhere", "name": forged.owner["metadata"]["name"], "uid": forged.uid}
    await scene.record(backup, grantedRestores=[other, elsewhere])
    late = await scene.restore(backup, recorded=False)
    assert await scene.status_of(late, "GET", key) == 403


async def test_replaced_manifest_gives_no_packs(scene: Scene, tmp_path: Path) -> None:
    """Somebody who writes to the bucket cannot widen a grant: the pins of the status decide."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "file").write_bytes(random.Random(1).randbytes(MIB))
    first = await scene.back_up(folder)
    key, uid = first["status"]["manifestKey"], first["metadata"]["uid"]
    scene.source.tasks.pins.pop(uid)
    scene.store.delete([key])
    (folder / "file").write_bytes(random.Random(2).randbytes(MIB))
    scene.source.tasks.back_up(folder, uid)
    mover = await scene.restore(first)
    answer = await scene.broker.sign(mover.token, "GET", f"{scene.bucket}/{key}")
    assert answer.status == 403
    assert "packs of the backup are unknown" in answer.json["message"]


async def test_record_of_a_restore_survives_other_writes_of_the_status(kubeconfig: Path, client: KubeClient) -> None:
    """The operator records and releases it, while it applies the rest of the status on the server's side."""
    source, target = (f"{name}-{uuid.uuid4().hex[:8]}" for name in ("source", "target"))
    uids = [
        (await client.create(kinds.NAMESPACE, {"metadata": {"name": name}}))["metadata"]["uid"]
        for name in (source, target)
    ]
    spec = {"backups": {"names": ["full"]}, "to": {"namespaces": [target]}}
    await client.create(kinds.BACKUP_GRANT, {"metadata": {"name": "give", "namespace": source}, "spec": spec})
    metadata = {"name": "full", "namespace": source, "finalizers": [labels.BACKUP_FINALIZER]}
    backup = await client.create(kinds.VOLUME_BACKUP, {"metadata": metadata, "spec": {"volumeId": "data"}})
    key = layout.manifest_key("", VOLUME, backup["metadata"]["uid"])
    status = {"id": backup["metadata"]["uid"], "phase": "available", "manifestKey": key, "storeName": "gone"}
    await client.merge_patch(kinds.VOLUME_BACKUP, "full", source, {"status": status}, subresource="status")
    restore = {"backupId": "full", "backupNamespace": source}
    made = await client.create(
        kinds.VOLUME_RESTORE, {"metadata": {"name": "back", "namespace": target}, "spec": restore}
    )

    policy = OperatorPolicy(MoverSettings("example/cinderblock:1"))
    async with aclosing(await connect(kubeconfig=str(kubeconfig), reduce=reduce_object)) as kube:
        pool = StorePool(kube, ignores_unsigned_headers=ignores_unsigned_headers)
        reconciler = Reconciler(Context(kube, pool, policy))

        async def reconciled(kind: Kind, name: str) -> Mapping[str, Any]:
            await reconciler.reconcile(ObjectKey(kind.kind, source, name))
            found = await client.get(kind, name, source)
            assert found is not None
            shown: Mapping[str, Any] = found["status"]
            return shown

        granted = await reconciled(kinds.BACKUP_GRANT, "give")
        assert granted["namespaces"] == [{"name": target, "uid": uids[1]}]
        assert await reconciled(kinds.BACKUP_GRANT, "give") == granted
        current = await reconciled(kinds.VOLUME_BACKUP, "full")
        assert current["phase"] == "available"
        found = VolumeBackup.model_validate(await client.get(kinds.VOLUME_BACKUP, "full", source))
        recorded = readers.record(VolumeRestore.model_validate(made), found)
        assert isinstance(recorded, RecordGrantedRestores)
        await record_granted_restores(kube, recorded)
        with pytest.raises(Conflict):
            await record_granted_restores(kube, recorded)
        for _ in range(2):
            current = await reconciled(kinds.VOLUME_BACKUP, "full")
            assert current["phase"] == "restoring"
            assert [entry["name"] for entry in current["grantedRestores"]] == ["back"]
        ended = {"id": made["metadata"]["uid"], "phase": "available"}
        await client.merge_patch(kinds.VOLUME_RESTORE, "back", target, {"status": ended}, subresource="status")
        current = await reconciled(kinds.VOLUME_BACKUP, "full")
        assert (current["phase"], current["grantedRestores"]) == ("available", [])
        pool.close()
