"""Rules of a container about deleted objects, from servers that report, do not know or do not allow them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import pytest

from cinderblock.errors import AccessDenied, PermanentError, StoreUnreachable
from cinderblock.lifecycle.store.container_rules import (
    ContainerRules,
    LifecycleRule,
    ObjectLockRule,
    UnknownRule,
    Versioning,
)
from cinderblock.reasons import Reason
from cinderblock.store.retention import ObjectState, read_rules
from cinderblock.store.retrying import RetryClock, RetryingStore
from cinderblock.store.s3.store import S3Store
from tests.support.store.aws.server import BARE, CREDENTIALS, AwsStub, aws_stub
from tests.unit.store.canned import canned_server, s3_error

NAME = "volumebackups"
RULES = ("s3:GetBucketVersioning", "s3:GetBucketObjectLockConfiguration", "s3:GetLifecycleConfiguration")
EXPIRE = (
    "<Rule><ID>old</ID><Status>Enabled</Status><Filter><Prefix>a/</Prefix></Filter>"
    "<Expiration><Days>90</Days></Expiration></Rule>"
)


@pytest.fixture
def stub() -> Iterator[AwsStub]:
    with aws_stub() as running:
        yield running


@pytest.fixture
def store(stub: AwsStub) -> Iterator[S3Store]:
    with closing(S3Store(stub.location(NAME), CREDENTIALS)) as opened:
        yield opened


def test_plain_container_keeps_nothing(stub: AwsStub, store: S3Store) -> None:
    stub.add_bucket(NAME)
    assert read_rules(store.retention) == ContainerRules(Versioning.OFF, None, ())
    assert len(stub.requests) == 3


def test_rules_of_a_container_are_read(stub: AwsStub, store: S3Store) -> None:
    stub.add_bucket(NAME, lock=True, default=("GOVERNANCE", timedelta(days=30)), lifecycle=EXPIRE)
    assert read_rules(store.retention) == ContainerRules(
        Versioning.ENABLED,
        ObjectLockRule("GOVERNANCE", "30 days"),
        (LifecycleRule("old", "a/", expires="90 days after they were written"),),
    )


def test_suspended_versioning_and_a_lock_without_default_are_read(stub: AwsStub, store: S3Store) -> None:
    stub.add_bucket(NAME, lock=True).versioning = "Suspended"
    assert read_rules(store.retention) == ContainerRules(Versioning.SUSPENDED, ObjectLockRule(), ())


def test_forbidden_rules_name_the_missing_permission(stub: AwsStub, store: S3Store) -> None:
    stub.add_bucket(NAME)
    stub.refuse(*RULES)
    rules = read_rules(store.retention)
    found = (rules.versioning, rules.object_lock, rules.lifecycle)
    assert found == tuple(
        UnknownRule(Reason.ACCESS_DENIED, f"the credentials lack a permission. Allow {permission}")
        for permission in RULES
    )


@pytest.mark.parametrize(
    ("status", "code"),
    [(501, "NotImplemented"), (405, "MethodNotAllowed"), (400, "UnsupportedOperation"), (404, "NoSuchThing")],
)
def test_unknown_rules_of_a_simple_server_are_no_error(stub: AwsStub, store: S3Store, status: int, code: str) -> None:
    stub.add_bucket(NAME)
    for answer in (code, BARE):
        stub.refuse(*RULES, status=status, code=answer)
        rules = read_rules(store.retention)
        for found in (rules.versioning, rules.object_lock, rules.lifecycle):
            assert isinstance(found, UnknownRule)
            assert found.reason is Reason.NOT_SUPPORTED


def test_versitygw_without_a_directory_for_versions_keeps_none(stub: AwsStub, store: S3Store) -> None:
    stub.add_bucket(NAME)
    stub.refuse("s3:GetBucketVersioning", status=501, code="VersioningNotConfigured")
    assert store.retention.versioning() is Versioning.OFF


def test_silent_server_is_not_called_ignorant() -> None:
    with (
        canned_server(s3_error("503 Service Unavailable", "SlowDown")) as server,
        closing(S3Store(AwsStub(server.url).location(NAME), CREDENTIALS)) as store,
        pytest.raises(StoreUnreachable),
    ):
        read_rules(store.retention)


def test_rules_are_not_asked_again_and_states_are() -> None:
    waits: list[float] = []
    with (
        canned_server(s3_error("503 Service Unavailable", "SlowDown")) as server,
        closing(S3Store(AwsStub(server.url).location(NAME), CREDENTIALS)) as inner,
    ):
        store = RetryingStore(inner, clock=RetryClock(lambda: 0.0, waits.append, lambda low, high: high))
        with pytest.raises(StoreUnreachable):
            store.retention.versioning()
        assert (len(server.requests), waits) == (1, [])
        with pytest.raises(StoreUnreachable, match="tried 10 times"):
            store.retention.inspect("key")
        with pytest.raises(StoreUnreachable, match="tried 10 times"):
            store.retention.versions("key", 1)


def test_state_shows_version_and_lock(stub: AwsStub, store: S3Store) -> None:
    bucket = stub.add_bucket(NAME, lock=True)
    version = bucket.put("key", b"x")
    assert store.retention.inspect("key") == ObjectState(exists=True, is_version=True)
    version.mode, version.until = "COMPLIANCE", stub.now().replace(microsecond=0) + timedelta(days=1)
    assert store.retention.inspect("key").retained_until == version.until
    version.legal_hold = True
    assert store.retention.inspect("key").has_legal_hold
    bucket.delete("key")
    assert store.retention.inspect("key") == ObjectState(exists=False, is_hidden=True)


def test_object_from_before_versioning_is_hidden_by_a_deletion(stub: AwsStub, store: S3Store) -> None:
    bucket = stub.add_bucket(NAME)
    bucket.put("key", b"x")
    assert store.retention.inspect("key") == ObjectState(exists=True)
    assert store.retention.inspect("absent") == ObjectState(exists=False)
    bucket.versioning = "Enabled"
    assert store.retention.inspect("key").is_version


@pytest.mark.parametrize("status", [400, 403, 405, 501])
def test_server_that_shows_no_state_is_no_error(stub: AwsStub, store: S3Store, status: int) -> None:
    stub.add_bucket(NAME).put("key", b"x")
    stub.refuse("s3:GetObject", status=status)
    assert store.retention.inspect("key") == ObjectState(exists=True)


def test_versions_are_counted_without_markers(stub: AwsStub, store: S3Store) -> None:
    bucket = stub.add_bucket(NAME, versioning="Enabled")
    for _ in range(2):
        bucket.put("a b/key", b"x")
    bucket.put("other", b"x")
    bucket.delete("a b/key")
    found = store.retention.versions("a b/", 100)
    assert (found.keys, found.more) == (("a b/key", "a b/key"), False)


def test_listing_of_versions_is_bounded(stub: AwsStub, store: S3Store) -> None:
    bucket = stub.add_bucket(NAME, versioning="Enabled")
    for number in range(2500):
        bucket.put(f"{number:04}", b"")
    whole = store.retention.versions("", 10_000)
    assert (list(whole.keys), whole.more) == ([f"{number:04}" for number in range(2500)], False)
    stub.requests.clear()
    part = store.retention.versions("", 1000)
    assert (len(part.keys), part.more, len(stub.requests)) == (2000, True, 2)


def test_versions_need_a_permission_and_a_server_that_knows_them(stub: AwsStub, store: S3Store) -> None:
    stub.add_bucket(NAME)
    stub.refuse("s3:ListBucketVersions")
    with pytest.raises(AccessDenied):
        store.retention.versions("", 1)
    stub.refuse("s3:ListBucketVersions", status=501, code="NotImplemented")
    with pytest.raises(PermanentError, match="does not support ListObjectVersions") as raised:
        store.retention.versions("", 1)
    assert raised.value.reason is Reason.NOT_SUPPORTED


@pytest.mark.parametrize("size", [10, 100 << 20], ids=["whole", "in parts"])
def test_upload_under_a_default_retention_is_stored_and_locked(stub: AwsStub, store: S3Store, size: int) -> None:
    """AWS demands a checksum of it, of the whole or of each part."""
    bucket = stub.add_bucket(NAME, lock=True, default=("COMPLIANCE", timedelta(days=1)))
    for key in ("first", "second"):
        store.put(key, bytes(size))
        assert len(store.get(key)) == size
        assert store.retention.inspect(key).is_locked(stub.now())
    assert [len(versions) for versions in bucket.versions.values()] == [1, 1]
