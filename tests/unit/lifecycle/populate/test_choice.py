"""Which backup a claim gets follows from the manifests of the store alone, and a doubt is never an empty volume."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinderblock.api.v1alpha1.restore_source import Selection
from cinderblock.lifecycle.imports.records import ReadManifest, StoredManifest, UnreadManifest
from cinderblock.lifecycle.populate.choice import CannotTell, Chosen, NoBackup, Wanted, choose, samples
from cinderblock.reasons import Reason

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
MINE = Wanted("shop", "data")


def stored(volume: str, backup: str, written: int = 0) -> StoredManifest:
    """Return a listed manifest, written so many hours ago."""
    return StoredManifest(f"backups/{volume}/{backup}.manifest", volume, 100, NOW - timedelta(hours=written))


def read(backup: str, age: int, volume: str = "v-1", **more: Any) -> ReadManifest:
    """Return a readable manifest with data of so many hours ago."""
    usual = {"namespace": "shop", "volume_name": "data"}
    return ReadManifest(stored(volume, backup, age), NOW - timedelta(hours=age), **(usual | more))


def unread(backup: str, written: int, volume: str = "v-1") -> UnreadManifest:
    """Return a manifest that cannot be read."""
    return UnreadManifest(stored(volume, backup, written), Reason.KEY_UNAVAILABLE, "Key k-2 is missing.")


OTHER = read("other", 1, "v-9", volume_name="logs")
BACKUPS = [read("old", 9), read("new", 2), read("middle", 5, "v-2"), OTHER]


@pytest.mark.parametrize(
    ("select", "backup"),
    [
        (Selection(), "new"),
        (Selection(offset=1), "middle"),
        (Selection(as_of=NOW - timedelta(hours=4)), "middle"),
        (Selection(as_of=NOW - timedelta(hours=5)), "middle"),
        (Selection(as_of=NOW - timedelta(hours=4), offset=1), "old"),
        (Selection(max_age="2h"), "new"),
    ],
)
def test_backup_is_chosen_by_the_time_of_its_data(select: Selection, backup: str) -> None:
    chosen = choose(BACKUPS, 4, MINE, select, NOW)
    assert isinstance(chosen, Chosen)
    assert chosen.manifest.stored.backup_id == backup


def test_volume_is_found_by_its_id_whatever_its_name_is() -> None:
    chosen = choose([OTHER], 1, Wanted("shop", "data", "v-9"), Selection(), NOW)
    assert isinstance(chosen, Chosen)


@pytest.mark.parametrize(
    ("select", "reason"),
    [
        (Selection(offset=3), Reason.NO_BACKUP),
        (Selection(as_of=NOW - timedelta(hours=10)), Reason.NO_BACKUP),
        (Selection(max_age="1h"), Reason.DATA_TOO_OLD),
    ],
)
def test_backups_that_do_not_fit_are_no_proof_that_there_is_none(select: Selection, reason: Reason) -> None:
    outcome = choose(BACKUPS, 4, MINE, select, NOW)
    assert isinstance(outcome, CannotTell)
    assert outcome.reason is reason


def test_store_without_the_volume_proves_that_there_is_no_backup() -> None:
    assert choose([OTHER, unread("damaged", 1, "v-9")], 7, MINE, Selection(), NOW) == NoBackup(
        "The store holds no backup of claim shop/data, and 7 backups of other volumes.", 7
    )


def test_other_namespace_or_name_does_not_count() -> None:
    found = [read("a", 1, namespace="prod"), read("b", 1, "v-2", volume_name="data-0")]
    assert isinstance(choose(found, 2, MINE, Selection(), NOW), NoBackup)


def test_volume_that_cannot_be_read_may_be_the_wanted_one() -> None:
    outcome = choose([OTHER, unread("sealed", 3, "v-3")], 2, MINE, Selection(), NOW)
    assert isinstance(outcome, CannotTell)
    assert "Key k-2 is missing" in outcome.message


def test_newer_manifest_that_cannot_be_read_stops_the_choice() -> None:
    outcome = choose([*BACKUPS, unread("newest", 1)], 5, MINE, Selection(), NOW)
    assert isinstance(outcome, CannotTell)
    assert outcome.reason is Reason.CANNOT_TELL


def test_older_manifest_that_cannot_be_read_changes_nothing() -> None:
    assert isinstance(choose([*BACKUPS, unread("older", 8)], 5, MINE, Selection(), NOW), Chosen)


def test_manifest_without_a_time_may_be_the_newest() -> None:
    timeless = UnreadManifest(StoredManifest("backups/v-1/x.manifest", "v-1"), Reason.INTEGRITY_ERROR, "It is damaged.")
    assert isinstance(choose([*BACKUPS, timeless], 5, MINE, Selection(), NOW), CannotTell)


def test_last_manifest_of_each_volume_comes_first() -> None:
    listed = [stored("v-1", "a", 5), stored("v-1", "b", 1), StoredManifest("backups/v-2/c.manifest", "v-2")]
    assert [[each.backup_id for each in manifests] for manifests in samples(listed).values()] == [["b", "a"], ["c"]]


manifests = st.lists(
    st.one_of(
        st.builds(
            lambda backup, age, volume, name: read(backup, age, volume, volume_name=name),
            st.text("abc", min_size=1, max_size=3),
            st.integers(0, 20),
            st.sampled_from(["v-1", "v-2", "v-3"]),
            st.sampled_from(["data", "logs"]),
        ),
        st.builds(unread, st.text("abc", min_size=1, max_size=3), st.integers(0, 20), st.sampled_from(["v-1", "v-4"])),
    ),
    max_size=8,
)
selections = st.builds(
    Selection,
    as_of=st.none() | st.integers(0, 20).map(lambda hours: NOW - timedelta(hours=hours)),
    offset=st.integers(0, 3),
)


@settings(max_examples=200)
@given(found=manifests, select=selections)
def test_no_backup_is_only_proven_if_nothing_can_be_one(found: list[Any], select: Selection) -> None:
    outcome = choose(found, len(found), MINE, select, NOW)
    mine = [each for each in found if isinstance(each, ReadManifest) and MINE.matches(each)]
    if isinstance(outcome, NoBackup):
        assert not mine
        known = {each.stored.volume_id for each in found if isinstance(each, ReadManifest)}
        assert all(each.stored.volume_id in known for each in found)
    if isinstance(outcome, Chosen):
        assert outcome.manifest in mine
        fits = [each for each in mine if select.as_of is None or each.data_time <= select.as_of]
        newer = [each for each in fits if each.data_time > outcome.manifest.data_time]
        assert len(newer) <= select.offset


@pytest.mark.parametrize("missing", ["namespace", "volume_name"])
def test_manifest_that_does_not_record_its_claim_is_a_doubt(missing: str) -> None:
    nameless = read("nameless", 1, "v-7", **{missing: ""})
    found = choose([nameless, OTHER], 2, MINE, Selection(), NOW)
    assert isinstance(found, CannotTell)
    assert "do not record their claim" in found.message
    assert isinstance(choose([*BACKUPS, nameless], 5, MINE, Selection(), NOW), Chosen)
    assert isinstance(choose([nameless], 1, Wanted("shop", "data", "v-1"), Selection(), NOW), NoBackup)
