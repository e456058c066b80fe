"""Remains of a deleted backup in a container, with fewer and fewer permissions."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime

import pytest

from cinderblock.errors import AccessDenied, PermanentError, StoreUnreachable
from cinderblock.lifecycle.backup.remains import NOTHING, Remains, deletion_event, describe
from cinderblock.repository import remains
from cinderblock.repository.remains import find_remains
from cinderblock.store.s3.store import S3Store
from tests.support.mover.backups import PREFIX, VOLUME, Backups
from tests.support.mover.parent_chains import ParentChain
from tests.support.store.aws.bucket import Bucket
from tests.support.store.aws.bucket_store import BucketStore
from tests.support.store.aws.server import CREDENTIALS, AwsStub
from tests.unit.store.canned import answer, canned_server, s3_error

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


def over_http(*answers: bytes) -> Remains:
    with (
        canned_server(*answers) as server,
        closing(S3Store(AwsStub(server.url).location("volumebackups"), CREDENTIALS)) as store,
    ):
        return find_remains(store, PREFIX, VOLUME, "full")


@pytest.mark.parametrize(
    "given",
    [
        answer("200 OK", "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"),
        answer("200 OK", "<html/>", Content_Type="text/html"),
        answer("200 OK", "<ListVersionsResult><IsTruncated>true</IsTruncated></ListVersionsResult>"),
        answer("200 OK", "<ListVersionsResult><IsTruncated>false</IsTruncated><Version/></ListVersionsResult>"),
        answer("503 Service Unavailable"),
        answer("403 Forbidden", "<html/>", Content_Type="text/html"),
        s3_error("403 Forbidden", "ExpiredToken"),
        s3_error("404 Not Found", "NoSuchBucket"),
    ],
    ids=["listing", "page", "without end", "without key", "busy", "firewall", "expired", "no bucket"],
)
def test_nothing_is_claimed_after_an_answer_to_another_question(given: bytes) -> None:
    """Such a server ignores the query of the requests, or does not answer them."""
    found = over_http(given)
    assert (found.is_hidden, found.versions) == (None, None)
    assert "Allow s3:" not in found.cause
    assert deletion_event(found)[1].startswith(f"{GONE}. Whether versions of the data remain in the store is unknown")


def test_version_that_a_server_repeats_counts_once() -> None:
    key = f"{PREFIX}/backups/{VOLUME}/full.manifest"
    row = f"<Version><Key>{key}</Key><VersionId>1</VersionId></Version>"
    marker = f"<IsTruncated>true</IsTruncated><NextKeyMarker>{key}</NextKeyMarker>"
    page = answer("200 OK", f"<ListVersionsResult>{marker}{row}</ListVersionsResult>")
    end = answer("200 OK", "<ListVersionsResult><IsTruncated>false</IsTruncated></ListVersionsResult>")
    assert over_http(page, page, end) == Remains(is_hidden=True, versions=1, more=True)


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
