"""Owner markers cost few requests: also with many stores, and if the bucket permits none of them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pytest

from cinderblock.api.layout import owner_key
from cinderblock.api.owner import OwnerMarker
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.cluster_identity import ClusterIdentity
from cinderblock.controller.stores import owners
from cinderblock.controller.stores.owners import OwnerMarkers
from cinderblock.errors import AccessDenied, CinderblockError, StoreUnreachable
from cinderblock.kube.client import KubeClient
from cinderblock.store.memory import MemoryStore
from tests.support.simulation.observed_builders import a_store

if TYPE_CHECKING:
    from cinderblock.controller.stores.pool import StorePool
    from cinderblock.controller.stores.secrets import SecretReader

T = TypeVar("T")
NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


class CountingStore(MemoryStore):
    """Counts requests, and fails some."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: Counter[str] = Counter()
        self.errors: dict[str, CinderblockError] = {}

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self._request("get")
        return super().get(key, start, length)

    def create(self, key: str, body: Any) -> bool:
        self._request("create")
        return super().create(key, body)

    def put(self, key: str, body: Any, lock: Any = None) -> None:
        self._request("put")
        super().put(key, body, lock)

    def _request(self, operation: str) -> None:
        self.requests[operation] += 1
        if operation in self.errors:
            raise self.errors[operation]


class ReopeningPool:
    """Opens a store again each time, as a pool does that many stores share."""

    def __init__(self, store: CountingStore) -> None:
        self.store = store

    async def open(self, store: BackupStore, container: str, secrets: SecretReader) -> CountingStore:
        opened = CountingStore()
        opened.__dict__ = self.store.__dict__
        return opened

    async def call(self, store: BackupStore, call: Callable[[], T]) -> T:
        return call()


class Claims:
    """Reconciliations of one store."""

    def __init__(self) -> None:
        self.bucket = CountingStore()
        self.markers = OwnerMarkers()
        self.pool = cast("StorePool", ReopeningPool(self.bucket))

    def claim(self, store: BackupStore, times: int = 1, cluster: str = "ours") -> OwnerMarker | None:
        """Reconcile a store some times, and return the last marker. Raises the last error."""
        return asyncio.run(self._claim(store, times, cluster))

    async def _claim(self, store: BackupStore, times: int, cluster: str) -> OwnerMarker | None:
        marker, last = None, None
        for _ in range(times):
            try:
                marker = await self.markers.claim(
                    self.pool, store, cast("SecretReader", None), cluster=cluster, release="", now=NOW
                )
                last = None
            except CinderblockError as error:
                last = error
        if last is not None:
            raise last
        return marker


def test_marker_is_read_once_however_often_its_store_is_opened() -> None:
    claims = Claims()
    marker = claims.claim(a_store(), 20)
    assert marker is not None
    assert marker.cluster == "ours"
    assert claims.bucket.requests == {"get": 2, "create": 1}, "the second get reads what was written"


@pytest.mark.parametrize(("operation", "expected"), [("get", {"get": 1}), ("create", {"get": 1, "create": 1})])
def test_denied_marker_is_not_tried_at_each_check(operation: str, expected: dict[str, int]) -> None:
    claims = Claims()
    claims.bucket.errors[operation] = AccessDenied("the policy does not permit meta/")
    with pytest.raises(CinderblockError, match="does not permit meta/") as caught:
        claims.claim(a_store(), 20)
    assert caught.value.reason == "AccessDenied"
    assert claims.bucket.requests == expected


def test_denied_takeover_is_not_tried_at_each_check() -> None:
    claims = Claims()
    theirs = claims.claim(a_store(), cluster="theirs")
    assert theirs is not None
    claims.markers = OwnerMarkers()
    claims.bucket.requests.clear()
    claims.bucket.errors["put"] = AccessDenied("the policy does not permit meta/")
    with pytest.raises(CinderblockError, match="does not permit meta/"):
        claims.claim(a_store(takeOver=theirs.epoch), 20)
    assert claims.bucket.requests == {"get": 2, "put": 1}


def test_temporary_error_is_tried_again_at_the_next_check() -> None:
    claims = Claims()
    claims.bucket.errors["create"] = StoreUnreachable("no route to host")
    with pytest.raises(StoreUnreachable):
        claims.claim(a_store(), 3)
    claims.bucket.errors.clear()
    assert claims.claim(a_store()) is not None


def test_changed_spec_waits_for_no_cache() -> None:
    claims, store = Claims(), a_store()
    claims.bucket.errors["get"] = AccessDenied("the policy does not permit meta/")
    with pytest.raises(CinderblockError):
        claims.claim(store)
    claims.bucket.errors.clear()
    changed = store.model_copy(update={"metadata": store.metadata.model_copy(update={"generation": 2})})
    assert claims.claim(changed) is not None


def test_server_that_stores_no_marker_is_left_alone() -> None:
    """It says that the object exists, and that it does not."""
    claims = Claims()
    claims.bucket.create = lambda key, body: bool(claims.bucket.requests.update(create=1))  # type: ignore[method-assign]
    assert claims.claim(a_store(), 20) is None
    assert claims.bucket.requests["get"] <= 2


def test_number_of_markers_in_memory_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "MAX_STORES", 3)
    claims = Claims()
    for number in range(9):
        store = a_store()
        claims.claim(store.model_copy(update={"metadata": store.metadata.model_copy(update={"uid": f"s-{number}"})}))
    assert list(claims.markers._known) == ["s-6", "s-7", "s-8"]


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        ("2026-05-04T12:00:00+05:00", "2026-05-04T07:00:00+00:00"),
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-12-31T23:59:59-14:00", None),
    ],
)
def test_time_of_a_marker_is_shown_in_utc(since: str, expected: str | None) -> None:
    claims = Claims()
    content = json.dumps({"cluster": "c", "epoch": "e", "since": since}).encode()
    MemoryStore.put(claims.bucket, owner_key(a_store().spec.prefix), content)
    if expected is None:
        with pytest.raises(CinderblockError, match=r"not an owner marker.*delete it"):
            claims.claim(a_store())
        return
    marker = claims.claim(a_store())
    assert marker is not None
    assert marker.since.isoformat() == expected


def test_denied_uid_of_the_cluster_is_not_asked_for_again() -> None:
    class Denying:
        asked = 0

        async def get(self, *words: object) -> None:
            self.asked += 1
            raise AccessDenied("no")

    kube, identity = Denying(), ClusterIdentity()

    async def ask() -> list[str]:
        return [await identity.uid(cast("KubeClient", kube)) for _ in range(5)]

    assert asyncio.run(ask()) == [""] * 5
    assert kube.asked == 1
