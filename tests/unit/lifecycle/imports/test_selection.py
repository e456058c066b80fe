"""Which backups an import selects, how it names them, and in which order it creates VolumeBackups."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.store import BackupStore, Inventory
from cinderblock.lifecycle.imports.difference import Difference
from cinderblock.lifecycle.imports.names import ImportNames
from cinderblock.lifecycle.imports.records import KnownBackup, ReadManifest, StoredManifest, record_of
from cinderblock.lifecycle.imports.selection import plan, select
from cinderblock.lifecycle.imports.settings import settings_of
from cinderblock.reasons import Reason
from tests.support.shared_stores import a_shared_store

NOON = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


def stored(volume: str, backup: str) -> StoredManifest:
    return StoredManifest(f"backups/{volume}/{backup}.manifest", volume)


def manifest(volume: str, backup: str, name: str = "", hours: float = 0, **more: Any) -> ReadManifest:
    return ReadManifest(stored(volume, backup), NOON - timedelta(hours=hours), name=name or backup, **more)


def a_store(**settings: Any) -> BackupStore:
    spec = {"credentialsSecretRef": {"name": "s3"}, "import": {"mode": "Always"} | settings}
    return BackupStore.model_validate({"metadata": {"name": "default", "namespace": "shop", "uid": "u"}, "spec": spec})


def chosen(*manifests: ReadManifest, difference: Difference | None = None, **settings: Any) -> list[str]:
    found = select(manifests, settings_of(a_store(**settings)), difference or Difference(()), NOON)
    return [item.stored.backup_id for item in found]


def test_own_namespace_and_none_are_selected_by_default() -> None:
    found = [manifest("v", "a", namespace="shop"), manifest("v", "b", namespace="other"), manifest("v", "c")]
    assert chosen(*found) == ["a", "c"]
    assert chosen(*found, namespaces=["other"]) == ["b", "c"]
    assert chosen(*found, namespaces=["*"]) == ["a", "b", "c"]


def test_place_of_a_shared_store_is_imported_as_a_whole() -> None:
    """The namespace may have had another name."""
    shared = a_shared_store("shop", **{"import": {"mode": "Once"}})
    found = [manifest("v", "a", namespace="former")]
    assert select(found, settings_of(shared), Difference(()), NOON) == found


def test_volumes_are_selected_by_uid_or_name() -> None:
    found = [manifest("v-1", "a", volume_name="data"), manifest("v-2", "b", volume_name="logs"), manifest("v-3", "c")]
    assert chosen(*found, volumes=["v-1", "logs"]) == ["a", "b"]


def test_old_data_is_left_out() -> None:
    found = [manifest("v", "a", hours=25), manifest("v", "b", hours=23)]
    assert chosen(*found, newerThan="1d") == ["b"]


def test_latest_only_takes_one_of_each_volume() -> None:
    found = [manifest("v-1", "a", hours=2), manifest("v-1", "b", hours=1), manifest("v-2", "c", hours=9)]
    assert chosen(*found, latestOnly=True) == ["b", "c"]


def test_latest_only_takes_nothing_older_than_existing_backups() -> None:
    known = KnownBackup("x", "u", "1", "x", "backups/v-1/x.manifest", data_time=NOON)
    difference = Difference((known,))
    difference.add(stored("v-1", "x"))
    assert chosen(manifest("v-1", "a", hours=1), difference=difference, latestOnly=True) == []
    assert chosen(manifest("v-1", "b", hours=-1), difference=difference, latestOnly=True) == ["b"]


def test_latest_only_waits_for_a_backup_without_a_time() -> None:
    known = KnownBackup("x", "u", "1", "x", "backups/v-1/x.manifest", has_ended=False)
    difference = Difference((known,))
    difference.add(stored("v-1", "x"))
    assert chosen(manifest("v-1", "a"), manifest("v-2", "b"), difference=difference, latestOnly=True) == ["b"]


def test_newest_of_each_volume_comes_first() -> None:
    found = [
        manifest("v-1", "a1", hours=5),
        manifest("v-1", "a2", hours=1),
        manifest("v-2", "b1", hours=3),
        manifest("v-2", "b2", hours=4),
    ]
    creations, refused = plan(found, "shop", ())
    assert [creation.name for creation in creations] == ["a2", "b1", "b2", "a1"]
    assert refused == []


@pytest.mark.parametrize("seed", range(20))
def test_names_are_those_of_the_command_line_in_any_order_and_after_any_stop(seed: int) -> None:
    """A second run has the VolumeBackups that the first one has created, whichever these are."""
    dice = random.Random(seed)
    names = ["daily", "daily-aaaaaaaa", "Not legal", "weekly", ""]
    found = [
        manifest(f"v-{dice.randrange(3)}", f"{dice.choice('ab') * 8}-{n:03}", dice.choice(names), dice.random())
        for n in range(12)
    ]
    of_the_command_line, expected = ImportNames(), {}
    for item in sorted(found, key=lambda item: item.stored.key):
        key, backup_id = item.stored.key, item.stored.backup_id
        expected[key] = of_the_command_line.name("shop", key, backup_id, item.name)
    dice.shuffle(found)
    creations, _ = plan(found, "shop", ())
    assert {creation.manifest.stored.key: creation.name for creation in creations} == expected
    done = {creation.manifest.stored.key: creation.name for creation in creations[: dice.randrange(12)]}
    rest, _ = plan([item for item in found if item.stored.key not in done], "shop", done.values())
    assert done | {creation.manifest.stored.key: creation.name for creation in rest} == expected


def test_second_manifest_with_the_same_id_is_refused() -> None:
    creations, refused = plan([manifest("v-2", "a"), manifest("v-1", "a")], "shop", ())
    assert [creation.manifest.stored.volume_id for creation in creations] == ["v-1"]
    assert [(item.stored.volume_id, item.reason) for item in refused] == [("v-2", Reason.ID_TAKEN)]


def test_name_that_somebody_takes_meanwhile_has_others() -> None:
    [creation], _ = plan([manifest("v", "abcdefgh-1", "daily")], "shop", ())
    first, second = creation.further_names()
    assert (creation.name, first) == ("daily", "daily-abcdefgh")
    assert second.startswith("daily-")
    assert creation.body(a_store(), first)["metadata"]["name"] == first


def test_manifest_under_the_id_of_another_volumebackup_is_refused() -> None:
    known = KnownBackup("mine", "u", "1", "a", "backups/v-1/a.manifest")
    difference = Difference((known,))
    for volume in ("v-1", "v-2"):
        difference.add(stored(volume, "a"))
    assert difference.new == []
    assert [item.stored.volume_id for item in difference.refused] == ["v-2"]
    assert "VolumeBackup mine has its id" in difference.refused[0].message


def test_backup_of_the_same_id_in_another_store_represents_the_manifest() -> None:
    body = {
        "metadata": {"name": "copy", "namespace": "shop", "uid": "u"},
        "spec": {"storeName": "first", "import": {"id": "a", "manifest": "backups/v-1/a.manifest"}},
    }
    known = record_of(VolumeBackup.model_validate(body), a_store())
    assert not known.is_import
    difference = Difference((known,))
    difference.add(stored("v-1", "a"))
    assert (difference.new, difference.refused) == ([], [])


def inventory(time: datetime, settings: str | None) -> Inventory:
    return Inventory(time=time, backups=1, volumes=1, bytes=1, imported=1, settings=settings)


def test_import_is_due_by_mode_interval_and_settings() -> None:
    always, once = settings_of(a_store()), settings_of(a_store(mode="Once"))
    assert always.due(None, NOON) == NOON
    assert always.due(inventory(NOON, always.digest), NOON) == NOON + timedelta(minutes=10)
    assert always.due(inventory(NOON, once.digest), NOON) == NOON
    assert always.due(inventory(NOON + timedelta(hours=1), always.digest), NOON) == NOON, "a clock was wrong"
    assert once.due(inventory(NOON, once.digest), NOON) is None
    assert once.due(inventory(NOON, None), NOON) == NOON + timedelta(minutes=10), "a key is missing"
    assert settings_of(a_store(mode="Never")).due(None, NOON) is None
