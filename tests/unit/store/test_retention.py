"""Rules of a container about deleted objects, from servers that report, do not know or do not allow them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

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
from cinderblock.store.retention import ObjectState, Versions, read_rules
from cinderblock.store.retrying import RetryClock, RetryingStore
from cinderblock.store.s3.store import S3Store
from tests.support.store.aws.server import BARE, CREDENTIALS, AwsStub, aws_stub
from tests.unit.store.canned import answer, canned_server, s3_error

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
    for given in (code, BARE):
        stub.refuse(*RULES, status=status, code=given)
        rules = read_rules(store.retention)
        for found in (rules.versioning, rules.object_lock, rules.lifecycle):
            assert isinstance(found, UnknownRule)
            assert found.reason is Reason.NOT_SUPPORTED


PAGE = "<html><body>no<br></body></html>"
LISTING = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"


def told(*answers: bytes) -> ContainerRules:
    """Return the rules that a server tells which sends these answers."""
    with (
        canned_server(*answers) as server,
        closing(S3Store(AwsStub(server.url).location(NAME), CREDENTIALS)) as store,
    ):
        return read_rules(store.retention)


@pytest.mark.parametrize("status", ["408 X", "425 X", "429 X", "500 X", "502 X", "503 X", "504 X", "520 X", "530 X"])
@pytest.mark.parametrize("body", ["", PAGE])
def test_page_of_a_busy_balancer_says_nothing_about_rules(status: str, body: str) -> None:
    with pytest.raises(StoreUnreachable):
        told(answer(status, body))


@pytest.mark.parametrize(
    ("given", "reason", "text"),
    [
        (answer("200 OK", LISTING), "NotSupported", "does not support the request (s3:Get"),
        (answer("200 OK", ""), "NotS3", "something else than an answer to Get"),
        (answer("200 OK", PAGE, Content_Type="text/html"), "NotS3", "something else than an answer to Get"),
        (answer("403 Forbidden", PAGE, Content_Type="text/html"), "NotS3", "the response is a web page"),
        (answer("302 Found", "", Location="http://login.example/"), "NotS3", "redirects to"),
        (s3_error("403 Forbidden", "AccessDenied"), "AccessDenied", "lack a permission. Allow s3:Get"),
        (s3_error("403 Forbidden", "ExpiredToken"), "CredentialsExpired", "session token has expired"),
        (s3_error("403 Forbidden", "RequestTimeTooSkewed"), "ClockSkewed", "the clock of this machine"),
        (s3_error("403 Forbidden", "InvalidAccessKeyId"), "AccessDenied", "Check AWS_ACCESS_KEY_ID"),
        (s3_error("301 Moved", "PermanentRedirect"), "WrongRegion", "Correct the region"),
        (s3_error("404 Not Found", "NoSuchBucket"), "ContainerNotFound", "the container does not exist"),
        (s3_error("400 Bad Request", "InvalidBucketName"), "InvalidInput", "the server rejects a name"),
        (s3_error("404 Not Found", "NoSuchKey"), "NotSupported", "does not support the request (s3:Get"),
        (s3_error("400 Bad Request", "InvalidArgument"), "NotSupported", "does not support the request (s3:Get"),
    ],
)
def test_unknown_rules_have_their_own_cause(given: bytes, reason: str, text: str) -> None:
    rules = told(given)
    assert not rules.are_known
    for found in (rules.versioning, rules.object_lock, rules.lifecycle):
        assert isinstance(found, UnknownRule)
        assert found.reason == reason
        assert text in found.message
        assert ("Allow s3:" in found.message) == (b"<Code>AccessDenied" in given)


@pytest.mark.parametrize(
    "body",
    [
        "<Rule><Action><Delete/></Action><Condition><Age>30</Age></Condition></Rule>",
        "<Rule><ID>x</ID><Status>on</Status><Expiration><Days>1</Days></Expiration></Rule>",
    ],
    ids=["Google", "other status"],
)
def test_lifecycle_rules_in_another_form_are_unknown(stub: AwsStub, store: S3Store, body: str) -> None:
    stub.add_bucket(NAME, lifecycle=body)
    rules = read_rules(store.retention)
    assert rules.versioning is Versioning.OFF
    assert isinstance(rules.lifecycle, UnknownRule)
    assert "not in the form of S3" in rules.lifecycle.message


def test_status_that_s3_does_not_have_is_unknown() -> None:
    rules = told(answer("200 OK", "<VersioningConfiguration><Status>On</Status></VersioningConfiguration>"))
    assert isinstance(rules.versioning, UnknownRule)


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
    bucket.versioning = "Suspended"
    assert store.retention.inspect("key") == ObjectState(exists=True, is_null_version=True)
    bucket.versioning = "Enabled"
    assert store.retention.inspect("key") == ObjectState(exists=True, is_null_version=True)
    bucket.put("key", b"y")
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
    assert store.retention.versions("", 10_000) == Versions()
    for versions in bucket.versions.values():
        versions.append(replace(versions[0], id="newer"))
    whole = store.retention.versions("", 10_000)
    assert (list(whole.keys), whole.more) == ([f"{number:04}" for number in range(2500)], False)
    stub.requests.clear()
    part = store.retention.versions("", 1000)
    assert (len(part.keys), part.more, len(stub.requests)) == (1000, True, 2)


def version_page(*rows: str, marker: str | None = None, version: str = "") -> bytes:
    """Return a page of ListObjectVersions, with the marker of the next one."""
    more = "" if marker is None else f"<NextKeyMarker>{marker}</NextKeyMarker>"
    more += f"<NextVersionIdMarker>{version}</NextVersionIdMarker>" if version else ""
    truncated = str(marker is not None).lower()
    body = f"<IsTruncated>{truncated}</IsTruncated>{more}{''.join(rows)}"
    return answer("200 OK", f"<ListVersionsResult>{body}</ListVersionsResult>")


def row(key: str, version: str = "1", latest: str = "false") -> str:
    return f"<Version><Key>{key}</Key><VersionId>{version}</VersionId><IsLatest>{latest}</IsLatest></Version>"


@pytest.mark.parametrize(
    ("pages", "keys", "more", "requests"),
    [
        ((version_page(row("k"), marker="k"),), ("k",), True, 2),
        ((version_page(row("k"), marker="k", version="1"),), ("k",), True, 2),
        ((version_page(row("k"), marker=""),), ("k",), True, 1),
        ((version_page(row("k"), marker="k"), version_page(row("j"), marker="j")), ("k", "j"), True, 2),
        ((version_page(row("k"), row("k"), row("k", "2")),), ("k", "k"), False, 1),
        ((version_page(row("k", latest="true"), row("k", "2")),), ("k",), False, 1),
        (
            (version_page(row("k"), marker="k", version="1"), version_page(row("k", "2"))),
            ("k", "k"),
            False,
            2,
        ),
    ],
    ids=["same key", "same version", "no key", "backwards", "repeated", "current", "advances"],
)
def test_each_version_counts_once_and_a_listing_must_advance(
    pages: tuple[bytes, ...], keys: tuple[str, ...], more: bool, requests: int
) -> None:
    with (
        canned_server(*pages) as server,
        closing(S3Store(AwsStub(server.url).location(NAME), CREDENTIALS)) as store,
    ):
        assert store.retention.versions("", 20_000) == Versions(keys, more)
        assert len(server.requests) == requests


@pytest.mark.parametrize(
    "page",
    [
        answer("200 OK", LISTING),
        answer("200 OK", PAGE),
        version_page(marker=""),
        version_page("<Version><VersionId>1</VersionId></Version>"),
    ],
    ids=["listing of objects", "web page", "nothing without end", "version without key"],
)
def test_listing_that_is_none_of_versions_is_an_error(page: bytes) -> None:
    with (
        canned_server(page) as server,
        closing(S3Store(AwsStub(server.url).location(NAME), CREDENTIALS)) as store,
        pytest.raises(PermanentError),
    ):
        store.retention.versions("", 10_000)


@pytest.mark.parametrize(
    ("text", "until", "is_unknown"),
    [
        ("2099-01-01T00:00:00Z", datetime(2099, 1, 1, tzinfo=UTC), False),
        ("2099-01-01T00:00:00", datetime(2099, 1, 1, tzinfo=UTC), False),
        ("9999-12-31T23:59:59-01:00", None, True),
        ("soon", None, True),
        ("99999-01-01T00:00:00Z", None, True),
        ("", None, False),
    ],
)
def test_unreadable_end_of_a_retention_is_a_lock_without_end(
    text: str, until: datetime | None, is_unknown: bool
) -> None:
    head = answer("200 OK", ETag='"x"', x_amz_object_lock_retain_until_date=text)
    with (
        canned_server(head) as server,
        closing(S3Store(AwsStub(server.url).location(NAME), CREDENTIALS)) as store,
    ):
        state = store.retention.inspect("key")
    assert state == ObjectState(exists=True, retained_until=until, has_unknown_end=is_unknown)
    assert state.is_locked(datetime.now(UTC)) == bool(text)


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
