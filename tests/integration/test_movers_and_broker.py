"""Whole movers with the real broker: a real API server reviews their tokens, and a real S3 server checks signatures."""

from __future__ import annotations

import asyncio
import io
import os
import random
import uuid
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from cinderblock.api import layout
from cinderblock.api.broker import TOKEN_DIRECTORY, TOKEN_FILE, BrokerLocation
from cinderblock.api.mover import MoverOperation, MoverReport, MoverTask, VerifyTask, task_to_env
from cinderblock.api.v1alpha1.store import MoverAccess
from cinderblock.api.v1alpha1.verification import VerificationLevel
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient
from cinderblock.mover.main import main
from cinderblock.reasons import Reason
from cinderblock.store.s3.signers.unsigned_headers import PROBE_DIRECTORY
from cinderblock.store.s3.store import S3Store
from tests.contract.s3_server import S3Server, s3_server
from tests.support.broker.brokers import Broker, broker_before
from tests.support.broker.tenants import Mover, Tenant, make_cluster_store, make_secrets, make_tenant
from tests.support.mover.backups import LATER, VOLUME, Backups
from tests.support.mover.compare import compare_trees
from tests.support.mover.trees import edit_tree, make_tree

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="trees have owners and devices"),
]

MIB = 1 << 20


class Tasks(Backups):
    """Tasks whose manifests are below the prefix of a namespace."""

    prefix = ""

    @override
    def manifest_key(self, backup: str) -> str:
        return layout.manifest_key(self.prefix, VOLUME, backup)


@dataclass
class Namespace:
    """The movers of one namespace.

    Attributes:
        tenant: the namespace.
        server: the S3 server.
        broker: the broker.
        tasks: makes tasks, and keeps pins.
        pods: a directory for each pod.
    """

    tenant: Tenant
    server: S3Server
    broker: Broker
    tasks: Tasks
    pods: Path

    async def run(self, mover: Mover, task: MoverTask, *, lists: bool = True) -> MoverReport:
        """Run a mover with the token of its pod, and nothing else. Return its report."""
        where = self.server.location("bucket", prefix=self.tenant.prefix)
        location = BrokerLocation(
            url=self.broker.url.replace("127.0.0.1", "localhost"),
            ca_certificate=self.broker.ca,
            access=MoverAccess.SIGNED_REQUESTS,
            encrypts=self.tasks.keys is not None,
            lists=lists,
        )
        task = task.model_copy(update={"store": where, "broker": location})
        pod = self.pods / mover.pod
        (pod / TOKEN_DIRECTORY).mkdir(parents=True)
        (pod / TOKEN_DIRECTORY / TOKEN_FILE).write_text(mover.token)
        log = pod / "termination-log"
        log.write_bytes(b"")
        await asyncio.to_thread(
            main, task_to_env(task), secrets_directory=str(pod), termination_log=str(log), out=io.StringIO()
        )
        return MoverReport.model_validate_json(log.read_bytes())

    async def back_up(self, source: Path, parent: str | None = None) -> Mapping[str, Any]:
        """Run a backup that succeeds, and return its VolumeBackup as the operator leaves it."""
        mover = await self.tenant.backup(volumeId=VOLUME)
        task = self.tasks.task(
            MoverOperation.BACKUP, mover.uid, path=source, parent=parent, data_timestamp=LATER, created_at=LATER
        )
        report = await self.run(mover, task)
        assert report.succeeded, report
        assert report.pins is not None
        self.tasks.pins[mover.uid] = report.pins
        status = {"phase": "available", "manifestKey": self.tasks.manifest_key(mover.uid)}
        return await self.tenant.set_status(kinds.VOLUME_BACKUP, mover.owner, status)


@pytest.mark.parametrize("sealed", [False, True], ids=["unsealed", "sealed"])
async def test_backup_increment_restore_and_verification(
    kubeconfig: Path, client: KubeClient, tmp_path: Path, sealed: bool
) -> None:
    system = f"system-{uuid.uuid4().hex[:8]}"
    with s3_server() as server:
        direct = S3Store(server.location("bucket", create_container=True), server.credentials)
        with closing(direct):
            direct.check()
            access, secret = server.credentials.access_key, server.credentials.secret_key
            keys = KeyRing(await make_secrets(client, system, access, secret), None) if sealed else None
            if not sealed:
                await make_secrets(client, system, access, secret)
            more = {} if sealed else {"encryptionSecretRef": None}
            await make_cluster_store(client, server.url, **more)
            async with broker_before(str(kubeconfig), system) as broker:
                tasks = Tasks(direct, keys)
                namespace = Namespace(await make_tenant(client), server, broker, tasks, tmp_path / "pods")
                tasks.prefix = namespace.tenant.prefix
                await _everything(namespace, tmp_path)
                await _end(namespace, tmp_path)
            found = [info.key for info in direct.list("")]
    assert all(key.startswith(f"{namespace.tenant.prefix}/") for key in found)
    assert not [key for key in found if PROBE_DIRECTORY in key]


async def _everything(namespace: Namespace, folder: Path) -> None:
    source, target = folder / "source", folder / "target"
    make_tree(str(source), seed=1)
    (source / "large").write_bytes(random.Random(1).randbytes(60 * MIB))
    first = await namespace.back_up(source)
    edit_tree(str(source), seed=3, edits=20)
    second = await namespace.back_up(source, first["metadata"]["uid"])
    name = second["metadata"]["uid"]
    target.mkdir()
    restore = await namespace.tenant.restore(second)
    report = await namespace.run(restore, namespace.tasks.task(MoverOperation.RESTORE, name, path=target))
    assert report.succeeded, report
    assert compare_trees(str(source), str(target), holes=True) == []
    for level in (VerificationLevel.STRUCTURE, VerificationLevel.DATA):
        mover = await namespace.tenant.verification(second, level.value)
        task = namespace.tasks.task(MoverOperation.VERIFY, name, verify=VerifyTask(level=level))
        report = await namespace.run(mover, task)
        assert report.succeeded, report
        assert report.verification is not None
        assert (report.verification.damaged_count, report.verification.unreadable_count) == (0, 0)


async def _end(namespace: Namespace, folder: Path) -> None:
    """Run a restore whose operation tries to read another volume. The broker refuses, and the report says so."""
    backup = await namespace.back_up(folder / "source")
    mover = await namespace.tenant.restore(backup)
    other = namespace.tasks.task(MoverOperation.RESTORE, backup["metadata"]["uid"], path=folder / "target")
    key = layout.manifest_key(namespace.tenant.prefix, str(uuid.uuid4()), backup["metadata"]["uid"])
    report = await namespace.run(mover, other.model_copy(update={"manifest": key}))
    assert (report.succeeded, report.permanent, report.reason) == (False, True, Reason.NOT_GRANTED)
