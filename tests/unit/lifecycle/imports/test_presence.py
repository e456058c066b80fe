"""When an imported VolumeBackup whose manifest is gone is marked, and when it is removed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cinderblock.api.v1alpha1.backup import ManifestMissing
from cinderblock.api.v1alpha1.store import BackupStore, Inventory
from cinderblock.lifecycle.imports.difference import Difference
from cinderblock.lifecycle.imports.presence import presence_writes
from cinderblock.lifecycle.imports.records import KnownBackup, StoredManifest
from cinderblock.lifecycle.imports.settings import settings_of

NOON = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
SPEC = {"credentialsSecretRef": {"name": "s3"}, "import": {"mode": "Always"}}
STORE = BackupStore.model_validate({"metadata": {"name": "default", "namespace": "shop", "uid": "u"}, "spec": SPEC})


@pytest.mark.parametrize(("seconds", "removing"), [(2, False), (59, False), (60, True)])
def test_second_listing_counts_only_after_a_minute(seconds: int, removing: bool) -> None:
    """A change of spec.import lists again at once. A server that has just started may still lack the manifest."""
    gone = KnownBackup(
        "gone",
        "u",
        "1",
        "a",
        "backups/v/a.manifest",
        is_import=True,
        may_be_removed=True,
        missing=ManifestMissing(since=NOON),
    )
    difference = Difference((gone,))
    difference.add(StoredManifest("backups/v/b.manifest", "v"))
    inventory = Inventory(time=NOON, backups=1, volumes=1, bytes=1, imported=1)
    began = NOON + timedelta(seconds=seconds)
    writes = presence_writes(difference, [gone], settings_of(STORE), inventory, began, may_remove=True)
    assert [write.missing.removing for write in writes if write.missing] == [True] * removing
