"""Removals and backups that work during a verification never look like damage.

The removals are the real ones. Each runs to its end before each single request of a verification, and the verification
stops at each of its requests in turn.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import pytest

from cinderblock.errors import NotFound, TransientError
from cinderblock.format.range_reader import Buffer
from cinderblock.repository.verify.findings import SETTLE_SECONDS, Findings
from cinderblock.store.base import ObjectInfo, ObjectLock, ObjectStore
from cinderblock.store.memory import MemoryStore
from cinderblock.store.retention import Retention
from tests.support.mover.backups import PREFIX, Backups
from tests.support.mover.parent_chains import ParentChain, a_line, name
from tests.support.mover.verifications import data, short_key, structure
from tests.support.store.paused import Ended

NEWEST = name(3)
Verify = Callable[..., Findings]
Change = Callable[[ParentChain], object]


class MeddledStore:
    """A store in which somebody changes something before a request, or between two requests.

    Attributes:
        count: number of requests so far.
    """

    def __init__(self, inner: ObjectStore, at: int, change: Callable[[], object]) -> None:
        self._inner = inner
        self._at = at
        self._change = change
        self._lock = threading.Lock()
        self.count = 0

    def _request(self) -> None:
        with self._lock:
            if self.count == self._at:
                self._change()
            self.count += 1

    def check(self) -> None:
        self._inner.check()

    def put(self, key: str, body: Buffer, lock: ObjectLock | None = None) -> None:
        raise AssertionError("a verification writes nothing")

    def set_lock(self, key: str, lock: ObjectLock) -> None:
        raise AssertionError("a verification locks nothing")

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self._request()
        return self._inner.get(key, start, length)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self._request()
        return self._inner.list(prefix)

    def delete(self, keys: Iterable[str]) -> None:
        raise AssertionError("a verification deletes nothing")

    @property
    def retention(self) -> Retention:
        return self._inner.retention

    def close(self) -> None:
        self._inner.close()


def expire_others(line: ParentChain) -> None:
    line.expire([name(0), name(1)])


def expire_chosen(line: ParentChain) -> None:
    line.expire([NEWEST])


def expire_all(line: ParentChain) -> None:
    line.expire(line.there())


def delete_chosen(line: ParentChain) -> None:
    line.remove(NEWEST)


def renew_and_expire(line: ParentChain) -> None:
    """Make a backup that needs nothing of the others, and remove some of them."""
    line.volume.files = {b"": line.volume.files[b""]}
    line.add(name(4), NEWEST)
    line.expire([name(0), name(2)])


def commit(line: ParentChain) -> None:
    line.add(name(4), NEWEST)


CHANGES: dict[str, Change] = {
    "expire others": expire_others,
    "expire chosen": expire_chosen,
    "expire all": expire_all,
    "delete chosen": delete_chosen,
    "renew and expire": renew_and_expire,
    "commit": commit,
}


def outcome_of(error: NotFound) -> str:
    """Return "gone" for the error of a backup whose manifest is gone."""
    return "gone" if error.reason == "ManifestMissing" else "another error"


def run_with(verify: Verify, change: Change, at: int) -> tuple[str, int]:
    """Verify while something changes at a request. Return the outcome, and the number of requests."""
    line = a_line(4)
    store = MeddledStore(line.backups.store, at, lambda: change(line))
    try:
        found = verify(line.backups, NEWEST, store=store)
    except NotFound as error:
        return outcome_of(error), store.count
    assert (found.damaged_count, found.affected) == (0, ()), f"at {at}: {found.damaged} {found.causes}"
    return "sound", store.count


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("verify", [structure, data])
def test_no_removal_and_no_commit_looks_like_damage(verify: Verify, change: str) -> None:
    outcomes: Counter[str] = Counter()
    at = 0
    while True:
        outcome, requests = run_with(verify, CHANGES[change], at)
        if at >= requests:
            break
        outcomes[outcome] += 1
        at += 1
    assert outcomes.keys() <= {"sound", "gone"}
    removes_chosen = change in ("expire chosen", "expire all", "delete chosen")
    assert (outcomes["gone"] > 0) is removes_chosen
    # The last request of a short verification is the listing of packs, after which nothing matters.
    assert outcomes["sound"] > 0 or (verify is structure and removes_chosen)


def expire(line: ParentChain, store: ObjectStore, numbers: tuple[int, ...]) -> None:
    line.expire([name(number) for number in numbers], store)


def delete(line: ParentChain, store: ObjectStore, numbers: tuple[int, ...]) -> None:
    line.remove(name(numbers[0]), store)


REMOVALS: dict[str, Callable[[ParentChain, ObjectStore], None]] = {
    "expire the first two": partial(expire, numbers=(0, 1)),
    "expire the newest two": partial(expire, numbers=(2, 3)),
    "expire all": partial(expire, numbers=(0, 1, 2, 3)),
    "delete the newest": partial(delete, numbers=(3,)),
}


def race(verify: Verify, removal: str, moments: tuple[int, int], at: int) -> str:
    """Verify. At one request, a removal runs up to its request ``at``; at a later one, it runs to its end."""
    line = a_line(4)
    sides: list[Ended] = []

    def begin() -> None:
        sides.append(Ended(partial(REMOVALS[removal], line), line.backups.store, at))

    store = MeddledStore(
        MeddledStore(line.backups.store, moments[0], begin), moments[1], lambda: [side.finish() for side in sides]
    )
    try:
        found = verify(line.backups, NEWEST, store=store)
    except NotFound as error:
        return outcome_of(error)
    finally:
        for side in sides:
            side.finish()
            assert side.error is None
        line.check()
    assert (found.damaged_count, found.affected) == (0, ()), f"{moments} {at}: {found.causes}"
    return "sound"


@pytest.mark.parametrize("removal", REMOVALS)
@pytest.mark.parametrize("verify", [structure, data])
def test_removal_that_stops_anywhere_in_between_is_no_damage(verify: Verify, removal: str) -> None:
    rnd = random.Random(removal)
    line = a_line(4)
    alone = Ended(partial(REMOVALS[removal], line), line.backups.store, None)
    alone.finish()
    counting = MeddledStore(a_line(4).backups.store, -1, lambda: None)
    verify(a_line(4).backups, NEWEST, store=counting)
    outcomes: Counter[str] = Counter()
    for _ in range(40):
        first = rnd.randrange(counting.count)
        moments = (first, rnd.randrange(first, counting.count + 5))
        outcomes[race(verify, removal, moments, rnd.randrange(alone.store.count))] += 1
    assert outcomes.keys() <= {"sound", "gone"}
    assert outcomes["sound"] > 0


@pytest.mark.parametrize("verify", [structure, data])
def test_pack_lost_at_any_request_is_damage_or_unseen(verify: Verify) -> None:
    """The same interleavings as above, with a loss instead of a removal."""
    outcomes: Counter[tuple[str, ...]] = Counter()
    at = requests = 0
    while at <= requests:
        line = a_line(4)
        lost = min(line.backups.keys_in_use(name(1)) & line.backups.keys_in_use(NEWEST))
        store = MeddledStore(line.backups.store, at, lambda: line.backups.store.delete([lost]))  # noqa: B023
        found = verify(line.backups, NEWEST, store=store)
        assert found.damaged in ((), (short_key(lost),))
        outcomes["damaged" if found.damaged else "sound",] += 1
        requests, at = store.count, at + 1
    assert outcomes["damaged",] > 2


def test_backup_that_withdraws_is_no_damage() -> None:
    """A backup whose parent was removed during its commit has a manifest for a moment."""
    line = a_line(3)
    parent, child = name(2), name(3)
    manifest = line.backups.manifest_key(child)

    class Paused(MemoryStore):
        """Remove the parent right after the manifest of the child was written, and verify then."""

        found: Findings | None = None

        def put(self, key: str, body: Buffer, lock: ObjectLock | None = None) -> None:
            super().put(key, body, lock)
            if key != manifest:
                return
            # The removal lists manifests before the child has one, and deletes packs afterwards.
            self.delete([line.backups.manifest_key(parent), *line.backups.pack_keys(parent)])
            self.found = data(line.backups, name(1), sleep=self.finish)

        def finish(self, seconds: float) -> None:
            """Withdraw, as the mover does meanwhile."""
            assert seconds == SETTLE_SECONDS
            self.delete([manifest])

    store = Paused()
    for found in line.backups.store.list(""):
        MemoryStore.put(store, found.key, line.backups.store.get(found.key))
    line.backups.store = store
    line.volume.add(b"more", (0, b"more" * 99), stamp=99)
    with pytest.raises(NotFound, match="removed during the backup"):
        line.backups.back_up(line.volume, child, parent)
    assert store.found is not None
    assert store.found.damaged_count == 0


def test_inherited_packs_are_read_and_missed() -> None:
    """Packs under the id of a removed backup belong to those that list them."""
    line = a_line(4)
    line.expire([name(0), name(2)])
    inherited = sorted(key for key in line.backups.keys_in_use(NEWEST) if f"/{name(0)}/" in key)
    assert inherited
    assert data(line.backups, NEWEST).packs_verified == len(line.backups.keys_in_use(NEWEST))
    for key in inherited:
        with line.backups.changed(key, None):
            assert structure(line.backups, NEWEST).damaged == (short_key(key),)
            assert data(line.backups, NEWEST).affected == (NEWEST, name(1))
        with line.backups.changed(key, bytes(len(line.backups.store.get(key)))):
            assert data(line.backups, NEWEST).damaged == (short_key(key),)


class ChangingStore(MemoryStore):
    """A store that returns a wrong byte in the first reads of packs."""

    wrong = 1

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        body = super().get(key, start, length)
        if f"{PREFIX}/packs/" in key and self.wrong:
            self.wrong -= 1
            return bytes([body[0] ^ 1]) + body[1:]
        return body


def test_wrong_byte_on_the_way_is_no_damage() -> None:
    line = a_line(2)
    store = ChangingStore()
    for found in line.backups.store.list(""):
        store.put(found.key, line.backups.store.get(found.key))
    assert data(Backups(store), name(1)).damaged_count == 0
    assert store.wrong == 0


@pytest.mark.parametrize("verify", [structure, data])
def test_store_that_fails_at_any_request_is_an_error(verify: Verify) -> None:
    at = requests = 0
    while at <= requests:
        line = a_line(2)

        def fail() -> None:
            raise TransientError("the store does not answer")

        store = MeddledStore(line.backups.store, at, fail)
        if at == requests and at:
            verify(line.backups, name(1), store=store)
            break
        with pytest.raises(TransientError):
            verify(line.backups, name(1), store=store)
        if not requests:
            counting = MeddledStore(line.backups.store, -1, fail)
            verify(line.backups, name(1), store=counting)
            requests = counting.count
        at += 1
