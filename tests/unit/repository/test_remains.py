"""Remains of a deleted backup in a container, with fewer and fewer permissions."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cinderblock.errors import AccessDenied, PermanentError, StoreUnreachable
from cinderblock.lifecycle.backup.remains import NOTHING, Remains, deletion_event, describe
from cinderblock.repository import remains
from cinderblock.repository.remains import find_remains
from tests.support.mover.backups import PREFIX, VOLUME, Backups
from tests.support.mover.parent_chains import ParentChain
from tests.support.store.aws.bucket import Bucket
from tests.support.store.aws.bucket_store import BucketStore

DENIED = AccessDenied("no")
GONE = "The VolumeBackup and its data were deleted"
HIDDEN = "The VolumeBackup was deleted, and its data is hidden."
CAUSE = "the credentials lack a permission. Allow s3:ListBucketVersions"


def deleted(versioning: str) -> BucketStore:
    """Return a store from which a backup was deleted."""
    store = BucketStore(Bucket(lambda: datetime.now(UTC), versioning=versioning))
    line = ParentChain(Backups(store))
    line.add("full", None)
    line.remove("full")
    assert list(store.list("")) == []
    return store


def found(store: BucketStore) -> Remains:
    return find_remains(store, PREFIX, VOLUME, "full")


def test_versions_of_manifest_and_packs_are_counted() -> None:
    assert found(deleted("")) == NOTHING
    store = deleted("Enabled")
    assert found(store) == Remains(is_hidden=True, versions=len(store.bucket.versions))
    store.bucket.put(f"{PREFIX}/packs/{VOLUME}/full/", b"")
    store.bucket.put(f"{PREFIX}/packs/{VOLUME}/full/somebody-elses", b"x")
    store.bucket.put(f"{PREFIX}/backups/{VOLUME}/full.manifest.old", b"x")
    assert found(store).versions == len(store.bucket.versions) - 3
    for key in [key for key, versions in store.bucket.versions.items() if versions[-1].is_marker]:
        del store.bucket.versions[key]
    assert found(store) == NOTHING


def test_many_versions_are_not_all_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remains, "COUNTED_VERSIONS", 0)
    counted = found(deleted("Enabled"))
    assert (counted.is_hidden, counted.more) == (True, True)
    assert describe(Remains(is_hidden=True, versions=10_000, more=True)).startswith("10000 or more versions remain")


HIDES = Remains(is_hidden=True, cause=CAUSE)


@pytest.mark.parametrize(
    ("versioning", "denied", "hidden"),
    [
        ("", ("versions",), NOTHING),
        ("Enabled", ("versions",), HIDES),
        ("Suspended", ("versions",), HIDES),
        ("Enabled", ("versions", "versioning"), HIDES),
        ("", ("versions", "versioning"), Remains(is_hidden=None, cause=CAUSE)),
    ],
)
def test_without_permission_versions_are_not_counted(versioning: str, denied: tuple[str, ...], hidden: Remains) -> None:
    """The container tells whether it keeps versions; if that is forbidden too, the key of the manifest does."""
    store = deleted(versioning)
    store.kept.errors = dict.fromkeys(denied, DENIED)
    assert found(store) == hidden


def test_nothing_is_claimed_that_nobody_knows() -> None:
    store = deleted("")
    store.kept.errors = dict.fromkeys(("versions", "versioning"), DENIED)
    unknown = Remains(is_hidden=None, cause=CAUSE)
    assert found(store) == unknown
    store.kept.errors["inspect"] = StoreUnreachable("no answer")
    assert found(store) == unknown


def test_server_without_versions_is_no_error() -> None:
    store = deleted("")
    store.kept.errors = {"versions": PermanentError("no such call", reason="NotSupported")}
    assert found(store) == NOTHING


@pytest.mark.parametrize(
    ("remaining", "reason", "note"),
    [
        (NOTHING, "Deleted", GONE),
        (
            Remains(is_hidden=True, versions=1),
            "Hidden",
            f"{HIDDEN} 1 version remains in the store, until a lifecycle rule or somebody removes them",
        ),
        (
            Remains(is_hidden=True, cause=CAUSE),
            "Hidden",
            f"{HIDDEN} Versions of the data remain in the store and cannot be counted: {CAUSE}",
        ),
        (
            Remains(is_hidden=None, cause=CAUSE),
            "Deleted",
            f"{GONE}. Whether versions of the data remain in the store is unknown: {CAUSE}",
        ),
    ],
)
def test_event_says_what_remains(remaining: Remains, reason: str, note: str) -> None:
    assert deletion_event(remaining) == (reason, note)
