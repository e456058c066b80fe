"""An object that does not parse is left out of lists, and logged. Another version of the schema accepted it."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from cinderblock.gateway.resources.backups import gather as backups_gather
from cinderblock.gateway.resources.snapshots import gather as snapshots_gather
from cinderblock.gateway.resources.volumes import gather as volumes_gather
from cinderblock.gateway.resources.volumes import ids
from cinderblock.gateway.rest.links import Links
from cinderblock.gateway.rest.microversions import MAXIMUM
from cinderblock.gateway.rest.request import ApiRequest, Caller
from cinderblock.kube.kinds import (
    BACKUP_STORE,
    POD,
    PVC,
    VOLUME_BACKUP,
    VOLUME_RESTORE,
    VOLUME_SNAPSHOT,
    Kind,
)

SPECS: dict[Kind, dict[str, Any]] = {
    PVC: {"resources": {"requests": {"storage": "1Gi"}}},
    VOLUME_BACKUP: {"volumeId": "good-pvc"},
    VOLUME_RESTORE: {"backupId": "b", "volumeId": "good-pvc"},
    VOLUME_SNAPSHOT: {"source": {"persistentVolumeClaimName": "good"}},
    BACKUP_STORE: {"credentialsSecretRef": {"name": "s3"}},
}


class ListsWithABadObject:
    """Stands in for KubeClient: every list has one good object and one that does not parse."""

    async def serves(self, kind: Kind) -> bool:
        return True

    async def list(self, kind: Kind, namespace: str, **selectors: str) -> list[dict[str, Any]]:
        if kind is POD:
            return []
        metadata = {"namespace": namespace, "creationTimestamp": "2026-01-01T00:00:00Z"}
        named = [{**metadata, "name": name, "uid": f"{name}-{kind.kind.lower()}"} for name in ("bad", "good")]
        named[1]["uid"] = "good-pvc" if kind is PVC else named[1]["uid"]
        return [{"metadata": named[0], "spec": 1}, {"metadata": named[1], "spec": SPECS[kind]}]


CLIENT: Any = ListsWithABadObject()
REQUEST = ApiRequest(Caller(None, "shop", CLIENT), MAXIMUM, {}, {}, b"", Links("http://x", 3, "shop"))


async def test_volumes_are_listed_without_it(caplog: pytest.LogCaptureFixture) -> None:
    volumes = (await volumes_gather.gather(REQUEST)).volumes()
    assert [volume.id for volume in volumes] == ["good-pvc"]
    warning = next(record for record in caplog.records if record.levelno == logging.WARNING)
    assert warning.message == "Skipped an object that does not parse"


async def test_snapshots_are_listed_without_it() -> None:
    assert [snapshot.name for snapshot in await snapshots_gather.gather(REQUEST)] == ["good"]


async def test_claims_are_found_without_it() -> None:
    found = await ids.find_claim(CLIENT, "shop", "good-pvc")
    assert found is not None
    assert found.name == "good"
    assert set(await ids.sizes_in_gib(CLIENT, "shop")) == {"good", "good-pvc"}


async def test_backup_requests_are_checked_without_it() -> None:
    body = {"volume_id": "good-pvc", "snapshot_id": "good-volumesnapshot"}
    observed = await backups_gather.gather(CLIENT, "shop", body)
    assert [backup.name for backup in observed.siblings] == ["good"]
    assert {restore.name for restore in observed.restores} == {"good"}
    assert observed.given_snapshot is not None
