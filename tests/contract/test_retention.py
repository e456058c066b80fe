"""Versioning and Object Lock: the stub follows AWS, and a real server differs only where it is known to be lenient.

Sources for AWS: S3 User Guide, "Deleting object versions from a versioning-enabled bucket" and "Managing Object Lock".
"""

from __future__ import annotations

import hashlib
import uuid
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cinderblock.api.v1alpha1.store import LockMode
from cinderblock.errors import ObjectLocked, ObjectLockUnavailable, ObjectNotFound, PermanentError
from cinderblock.lifecycle.store.container_rules import ObjectLockRule, UnknownRule, Versioning
from cinderblock.reasons import Reason
from cinderblock.store.base import ObjectLock
from cinderblock.store.lock_probe import probe_object_lock
from cinderblock.store.retention import ObjectState, read_rules
from cinderblock.store.s3.store import S3Store
from tests.contract.s3_server import S3Server, s3_server
from tests.support.mover.backups import Backups
from tests.support.mover.parent_chains import ParentChain
from tests.support.store.aws.server import CREDENTIALS, aws_stub

SOON = timedelta(days=1)


@dataclass
class Site:
    """A server, and whether it follows AWS in everything, keeps versions, and knows lifecycle rules."""

    server: S3Server
    is_aws: bool
    keeps_versions: bool

    def bucket(self, *, lock: bool = False) -> Iterator[S3Store]:
        """Create a bucket with versions, or with locks."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        with closing(S3Store(self.server.location(name), self.server.credentials)) as store:
            store._client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=lock)
            yield store


@pytest.fixture(
    scope="session",
    params=[
        pytest.param((True, True), id="aws"),
        pytest.param((False, True), id="versitygw", marks=pytest.mark.integration),
        pytest.param((False, False), id="versitygw without versions", marks=pytest.mark.integration),
    ],
)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """Run a server."""
    is_aws, keeps_versions = request.param
    if is_aws:
        with aws_stub() as stub:
            yield Site(S3Server(stub.url, CREDENTIALS), is_aws, keeps_versions)
        return
    with s3_server(keeps_versions=keeps_versions) as server:
        yield Site(server, is_aws, keeps_versions)


@pytest.fixture
def locked(site: Site) -> Iterator[S3Store]:
    """Create a bucket with Object Lock."""
    yield from site.bucket(lock=True)


@pytest.fixture
def plain(site: Site) -> Iterator[S3Store]:
    """Create a bucket without any rule."""
    yield from site.bucket()


def put_locked(store: S3Store, mode: str, until: datetime, key: str = "key") -> None:
    """Put a locked object, with the checksum that AWS demands."""
    store._client.put_object(
        Bucket=store._container,
        Key=key,
        Body=b"x",
        ObjectLockMode=mode,  # type: ignore[arg-type]
        ObjectLockRetainUntilDate=until,
        ContentMD5=b64encode(hashlib.md5(b"x").digest()).decode(),
    )


def in_a_day() -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + SOON


def code_of(error: pytest.ExceptionInfo[ClientError]) -> tuple[int, str]:
    response = error.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


def test_rules_of_a_bucket_are_told(site: Site, plain: S3Store, locked: S3Store) -> None:
    lifecycle: object = (
        ()
        if site.is_aws
        else UnknownRule(Reason.NOT_SUPPORTED, "the server does not support the request (s3:GetLifecycleConfiguration)")
    )
    rules = read_rules(plain.retention)
    assert (rules.versioning, rules.object_lock, rules.lifecycle) == (Versioning.OFF, None, lifecycle)
    rules = read_rules(locked.retention)
    assert rules.versioning is (Versioning.ENABLED if site.keeps_versions else Versioning.OFF)
    assert rules.object_lock == ObjectLockRule()


@pytest.mark.parametrize("mode", ["COMPLIANCE", "GOVERNANCE"])
def test_plain_deletion_of_a_locked_object(site: Site, locked: S3Store, mode: str) -> None:
    until = in_a_day()
    put_locked(locked, mode, until)
    state = locked.retention.inspect("key")
    assert state == ObjectState(exists=True, is_version=site.keeps_versions, retained_until=until, lock_mode=mode)
    if not site.keeps_versions:
        with pytest.raises(ObjectLocked):
            locked.delete(["key"])
        assert locked.get("key") == b"x"
        return
    locked.delete(["key"])
    assert list(locked.list("")) == []
    # versitygw does not tell that a marker hides an object.
    assert locked.retention.inspect("key") == ObjectState(exists=False, is_hidden=site.is_aws)
    assert locked.retention.versions("key", 10).keys == ("key",)


def test_version_of_a_locked_object_cannot_be_deleted(site: Site, locked: S3Store) -> None:
    if not site.keeps_versions:
        pytest.skip("a server without versions has none to delete")
    put_locked(locked, "COMPLIANCE", in_a_day())
    client, bucket = locked._client, locked._container
    version = client.head_object(Bucket=bucket, Key="key")["VersionId"]
    with pytest.raises(ClientError) as refused:
        client.delete_object(Bucket=bucket, Key="key", VersionId=version)
    assert code_of(refused) == (403, "AccessDenied")
    assert "protected by object lock" in refused.value.response["Error"]["Message"]
    answer = client.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "key", "VersionId": version}]})
    assert [error["Code"] for error in answer["Errors"]] == ["AccessDenied"]
    marker = client.delete_object(Bucket=bucket, Key="key")
    assert marker["DeleteMarker"]
    client.delete_object(Bucket=bucket, Key="key", VersionId=marker["VersionId"])
    assert locked.get("key") == b"x"


def test_legal_hold_has_no_end(site: Site, locked: S3Store) -> None:
    locked.put("key", b"x")
    client, bucket = locked._client, locked._container
    client.put_object_legal_hold(Bucket=bucket, Key="key", LegalHold={"Status": "ON"})
    state = locked.retention.inspect("key")
    assert (state.has_legal_hold, state.retained_until) == (True, None)
    if not site.keeps_versions:
        with pytest.raises(ObjectLocked):
            locked.delete(["key"])
    client.put_object_legal_hold(Bucket=bucket, Key="key", LegalHold={"Status": "OFF"})
    locked.delete(["key"])
    assert list(locked.list("")) == []


def test_backup_under_a_default_retention_is_whole_or_gone(site: Site, locked: S3Store) -> None:
    """Servers without versions refuse the deletion, others hide the backup; no server keeps half of one."""
    line = ParentChain(Backups(locked))
    line.add("full", None)
    client, bucket = locked._client, locked._container
    for found in list(locked.list("")):
        retention: Any = {"Mode": "COMPLIANCE", "RetainUntilDate": in_a_day()}
        client.put_object_retention(Bucket=bucket, Key=found.key, Retention=retention)
    count = len(list(locked.list("")))
    if site.keeps_versions:
        assert line.remove("full") == count
        assert list(locked.list("")) == []
        assert len(locked.retention.versions("", 100).keys) >= count
    else:
        with pytest.raises(ObjectLocked, match="Nothing was deleted") as refused:
            line.remove("full")
        assert refused.value.until is not None
        assert line.read_back("full") == line.held["full"]


@pytest.mark.parametrize("is_large", [False, True])
def test_lock_is_set_with_the_upload(
    site: Site, locked: S3Store, is_large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_large:
        monkeypatch.setattr("cinderblock.store.s3.store.MULTIPART_THRESHOLD_BYTES", 5 << 20)
        monkeypatch.setattr("cinderblock.store.s3.multipart.PART_BYTES", 5 << 20)
    body = bytes((6 << 20) if is_large else 6)
    lock = ObjectLock(LockMode.COMPLIANCE, in_a_day())
    locked.put("key", body, lock)
    state = locked.retention.inspect("key")
    assert (state.retained_until, state.lock_mode) == (lock.until, "COMPLIANCE")
    assert locked.get("key") == body
    locked.put("other", body)
    assert locked.retention.inspect("other").retained_until is None


@pytest.mark.parametrize("mode", [LockMode.COMPLIANCE, LockMode.GOVERNANCE])
def test_lock_is_extended_and_never_shortened(locked: S3Store, mode: LockMode) -> None:
    until = in_a_day()
    locked.put("key", b"x")
    for days in (0, 0, 3):
        locked.set_lock("key", ObjectLock(mode, until + timedelta(days=days)))
        assert locked.retention.inspect("key").retained_until == until + timedelta(days=days)
    with pytest.raises(ObjectLocked):
        locked.set_lock("key", ObjectLock(mode, until))
    assert locked.retention.inspect("key").retained_until == until + timedelta(days=3)


def test_nothing_is_locked_without_object_lock(plain: S3Store) -> None:
    lock = ObjectLock(LockMode.COMPLIANCE, in_a_day())
    with pytest.raises(PermanentError):
        plain.put("key", b"x", lock)
    plain.put("key", b"x")
    with pytest.raises(PermanentError):
        plain.set_lock("key", lock)
    with pytest.raises(ObjectNotFound):
        plain.set_lock("absent", lock)


def test_probe_accepts_only_a_container_with_versions_and_locks(site: Site, plain: S3Store, locked: S3Store) -> None:
    now = datetime.now(UTC)
    with pytest.raises(ObjectLockUnavailable, match="no versioning"):
        probe_object_lock(plain, "prefix", LockMode.COMPLIANCE, now)
    assert list(plain.list("")) == []
    if not site.keeps_versions:
        with pytest.raises(ObjectLockUnavailable, match="no versioning"):
            probe_object_lock(locked, "prefix", LockMode.COMPLIANCE, now)
        return
    probe_object_lock(locked, "prefix", LockMode.COMPLIANCE, now)
    (left,) = locked.list("")
    assert (left.key, left.size) == ("prefix/cinderblock.probe/lock", 1)
    until = locked.retention.inspect(left.key).retained_until
    assert until is not None
    assert timedelta(0) < until - now < timedelta(minutes=15)
