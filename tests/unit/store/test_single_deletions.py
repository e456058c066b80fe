"""Deletions on servers that do not know DeleteObjects, or whose policy allows only DeleteObject."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import pytest

from cinderblock.errors import AccessDenied, ObjectLocked
from cinderblock.store.s3.store import S3Store
from tests.support.store.aws.server import BARE, CREDENTIALS, AwsStub, aws_stub

KEYS = [f"a b/{number:04}" for number in range(20)]


@pytest.fixture
def stub() -> Iterator[AwsStub]:
    with aws_stub(keeps_versions=False) as running:
        yield running


@pytest.fixture
def store(stub: AwsStub) -> Iterator[S3Store]:
    stub.add_bucket("b", lock=True)
    with closing(S3Store(stub.location("b"), CREDENTIALS)) as opened:
        for key in (*KEYS, "other"):
            opened.put(key, b"x")
        stub.requests.clear()
        yield opened


def sent(stub: AwsStub) -> Counter[str]:
    return Counter(request.name for request in stub.requests)


@pytest.mark.parametrize(
    ("status", "code"),
    [(501, "NotImplemented"), (405, "MethodNotAllowed"), (403, "AccessDenied"), (501, BARE), (405, BARE)],
)
def test_objects_are_deleted_one_by_one(stub: AwsStub, store: S3Store, status: int, code: str) -> None:
    stub.refuse("DeleteObjects", status=status, code=code)
    store.delete([*KEYS, "absent"])
    assert [found.key for found in store.list("")] == ["other"]
    store.delete(["other"])
    assert list(store.list("")) == []
    assert sent(stub) == {"DeleteObjects": 1, "DeleteObject": len(KEYS) + 2, "ListObjectsV2": 2}


def test_forbidden_deletion_stays_an_error(stub: AwsStub, store: S3Store) -> None:
    stub.refuse("s3:DeleteObject")
    for _ in range(2):
        with pytest.raises(AccessDenied):
            store.delete(KEYS)
    assert len(list(store.list(""))) == len(KEYS) + 1
    assert sent(stub) == {"DeleteObjects": 2, "DeleteObject": 2, "ListObjectsV2": 1}


def test_locked_object_is_told_by_single_deletions_too(stub: AwsStub, store: S3Store) -> None:
    stub.refuse("DeleteObjects", status=501, code="NotImplemented")
    stub.buckets["b"].versions[KEYS[3]][0].until = stub.now() + timedelta(days=1)
    with pytest.raises(ObjectLocked):
        store.delete(KEYS)
    assert KEYS[3] in [found.key for found in store.list("")]


def test_known_request_is_not_replaced(stub: AwsStub, store: S3Store) -> None:
    store.delete(KEYS)
    assert sent(stub) == {"DeleteObjects": 1}
