"""A backup is copied to another store: whole, verified, and repeatable whatever interrupts it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from cinderblock.api.layout import manifest_key
from cinderblock.api.mover import MoverOperation
from cinderblock.errors import (
    ForeignManifest,
    IntegrityError,
    KeyUnavailable,
    NotFound,
    StoreUnreachable,
    TransientError,
)
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.reasons import Reason
from cinderblock.repository.copying import copy_backup as copy_module
from cinderblock.repository.copying.copy_backup import CopiedBackup, CopyPlace, copy_backup
from cinderblock.repository.inherited import MARK
from cinderblock.repository.objects import mark_key
from cinderblock.repository.progress import Progress
from cinderblock.repository.rewrap import run_rewrap
from cinderblock.repository.verify import findings
from cinderblock.restorer.restorer import run_restore
from cinderblock.store.base import ObjectLock, ObjectStore
from cinderblock.store.counted import CountedStore
from cinderblock.store.memory import MemoryStore
from tests.support.mover.backups import PREFIX, VOLUME, Backups, key_ring
from tests.support.mover.verifications import small_units
from tests.support.mover.volumes_in_memory import MemorySource
from tests.support.store.faults import Crash, FaultyStore, Operation
from tests.unit.repository.test_crash_points import Counting

OTHER = "copies/of"
"""A prefix that no manifest knows."""


@pytest.fixture(autouse=True)
def _no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "SETTLE_SECONDS", 0.0)


def volume() -> MemorySource:
    """Return a volume of a few packs."""
    rnd, source = random.Random(7), MemorySource()
    for number in range(20):
        source.add(b"file-%02d" % number, (0, rnd.randbytes(9000)))
    return source


def made(keys: KeyRing | None = None, store: ObjectStore | None = None) -> Backups:
    """Return the full backup "one", and "two" built on it."""
    backups, source = Backups(store or MemoryStore(), keys), volume()
    with small_units():
        backups.back_up(source, "one")
        source.add(b"file-07", (0, b"changed"), stamp=9)
        backups.back_up(source, "two", "one")
    return backups


@pytest.fixture(params=[None, key_ring()], ids=["unsealed", "sealed"])
def backups(request: pytest.FixtureRequest) -> Backups:
    return made(request.param)


def copy(
    backups: Backups,
    target: ObjectStore,
    backup: str = "two",
    *,
    prefix: str = PREFIX,
    source: ObjectStore | None = None,
    keys: KeyRing | None = None,
    seen: list[Progress] | None = None,
) -> CopiedBackup:
    progress = [] if seen is None else seen
    return copy_backup(
        CopyPlace(source or backups.store, PREFIX, backups.keys),
        CopyPlace(target, prefix, keys or backups.keys),
        backups.expected(backup),
        on_progress=progress.append,
    )


def contents(store: ObjectStore) -> dict[str, bytes]:
    return {info.key: store.get(info.key) for info in store.list("")}


def restore(backups: Backups, target: ObjectStore, prefix: str, path: Path, backup: str = "two") -> dict[str, bytes]:
    """Restore from the copy alone, and return the files."""
    path.mkdir()
    task = backups.task(MoverOperation.RESTORE, backup, path=path)
    location = task.store.model_copy(update={"prefix": prefix})
    task = task.model_copy(update={"store": location, "manifest": manifest_key(prefix, VOLUME, backup)})
    run_restore(task, target, backups.keys)
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_copy_restores_without_the_primary(backups: Backups, tmp_path: Path) -> None:
    target = MemoryStore()
    copy(backups, target, prefix=OTHER)
    backups.store.delete([info.key for info in backups.store.list("")])
    expected = {f"file-{number:02d}": content for number, content in enumerate(_files())}
    assert restore(backups, target, OTHER, tmp_path / "volume") == expected | {"file-07": b"changed"}


def _files() -> Iterator[bytes]:
    rnd = random.Random(7)
    return (rnd.randbytes(9000) for _ in range(20))


def test_all_copies_are_the_same_objects(backups: Backups) -> None:
    target = MemoryStore()
    copy(backups, target, "one")
    copy(backups, target, "two")
    assert contents(target) == contents(backups.store)


def test_second_copy_sends_nothing(backups: Backups) -> None:
    target = CountedStore(MemoryStore())
    first = copy(backups, target, "one")
    sent = target.counts.puts
    assert (first.packs, first.bytes_sent) == (sent - 1, target.counts.bytes_put)
    assert copy(backups, target, "one") == CopiedBackup(first.packs, 0)
    assert (target.counts.puts, target.counts.deletes) == (sent, 0)


def test_child_sends_only_what_its_parent_has_not(backups: Backups) -> None:
    target = MemoryStore()
    copy(backups, target, "one")
    counted = CountedStore(backups.store)
    copied = copy(backups, target, "two", source=counted)
    own = sum(len(backups.store.get(key)) for key in [*backups.pack_keys("two"), backups.manifest_key("two")])
    assert copied.bytes_sent == own
    assert (counted.counts.puts, counted.counts.deletes) == (0, 0)


def test_packs_of_a_parent_without_a_copy_are_marked(backups: Backups) -> None:
    target = MemoryStore()
    copy(backups, target, "two")
    mark = mark_key(PREFIX, VOLUME, "one")
    assert target.get(mark) == MARK
    copy(backups, target, "one")
    assert {key for key in contents(target) if key != mark} == set(contents(backups.store))


def test_progress_ends_at_the_total(backups: Backups) -> None:
    seen: list[Progress] = []
    copied = copy(backups, MemoryStore(), seen=seen)
    manifest = len(backups.store.get(backups.manifest_key("two")))
    assert [item.bytes_done for item in seen] == sorted(item.bytes_done for item in seen)
    assert seen[-1].bytes_done == seen[-1].bytes_total == copied.bytes_sent - manifest


@pytest.mark.usefixtures("burying")
@pytest.mark.parametrize(("side", "done"), [("source", False), ("target", False), ("target", True)])
def test_copy_that_dies_at_any_request_can_be_repeated(side: str, done: bool) -> None:
    backups = made(key_ring(), Counting())
    expected = contents(backups.store) | {mark_key(PREFIX, VOLUME, "one"): MARK}
    del expected[backups.manifest_key("one")]
    source = backups.store
    assert isinstance(source, Counting)
    source.calls.clear()
    undisturbed = Counting()
    copy(backups, undisturbed)
    calls = [*(source if side == "source" else undisturbed).calls]
    for operation in set(calls):
        if done and operation != "put":
            continue
        for number in range(calls.count(operation)):
            target = MemoryStore()
            faulty = FaultyStore(target if side == "target" else source)
            faulty.on(operation).crashes(done=done).after(number)
            stores = (faulty, source) if side == "target" else (target, faulty)
            with pytest.raises(Crash):
                copy(backups, stores[0], source=stores[1])
            _assert_whole_or_absent(backups, target)
            copy(backups, target)
            held = contents(target)
            assert expected == {key: held[key] for key in expected}, f"{operation} {number}"
            assert not held.keys() - expected.keys() - backups.keys_in_use("one")


def _assert_whole_or_absent(backups: Backups, target: MemoryStore) -> None:
    """A manifest in the target means that all its packs are there."""
    copied = Backups(target, backups.keys)
    if backups.manifest_key("two") in contents(target):
        assert copied.keys_in_use("two") <= set(contents(target))


@pytest.mark.parametrize("what", ["flipped", "short", "missing", "replaced"])
def test_damaged_pack_never_reaches_the_copy(backups: Backups, what: str) -> None:
    pack, other = sorted(backups.keys_in_use("two"))[:2]
    body = backups.store.get(pack)
    changes = {
        "flipped": bytes([body[0] ^ 1]) + body[1:],
        "short": body[:-1],
        "missing": None,
        "replaced": backups.store.get(other),
    }
    target = MemoryStore()
    with backups.changed(pack, changes[what]), pytest.raises(IntegrityError, match=pack):
        copy(backups, target)
    held = contents(target)
    assert pack not in held
    assert backups.manifest_key("two") not in held
    copy(backups, target)
    assert contents(target)[pack] == body


def test_damaged_manifest_never_reaches_the_copy(backups: Backups) -> None:
    key, target = backups.manifest_key("two"), MemoryStore()
    body = bytearray(backups.store.get(key))
    body[-100] ^= 1
    with backups.changed(key, bytes(body)), pytest.raises(IntegrityError):
        copy(backups, target)
    assert not contents(target)


def test_read_that_was_wrong_once_is_repeated(backups: Backups) -> None:
    source = FaultyStore(backups.store)
    source.on("get", "packs/").flips_a_bit(at=5)
    target = MemoryStore()
    copy(backups, target, source=source)
    assert backups.keys_in_use("two") <= set(contents(target))


def test_damaged_copy_is_replaced(backups: Backups) -> None:
    target = MemoryStore()
    copy(backups, target)
    pack = min(backups.keys_in_use("two"))
    target.put(pack, b"shorter")
    copy(backups, target)
    assert target.get(pack) == backups.store.get(pack)


def test_rewrapped_manifest_replaces_the_earlier_one() -> None:
    backups, target = made(key_ring()), MemoryStore()
    copy(backups, target)
    assert backups.keys is not None
    run_rewrap(backups.store, backups.manifest_key("two"), backups.expected("two"), backups.keys, "2024")
    copy(backups, target)
    key = backups.manifest_key("two")
    assert target.get(key) == backups.store.get(key)


def test_copy_with_a_key_of_its_own_keeps_it() -> None:
    backups, target = made(key_ring()), MemoryStore()
    copy(backups, target)
    key = backups.manifest_key("two")
    assert backups.keys is not None
    run_rewrap(target, key, backups.expected("two"), backups.keys, "2024")
    own = target.get(key)
    copy(backups, target, keys=key_ring("2024"))
    assert target.get(key) == own != backups.store.get(key)


def test_other_manifest_in_the_target_is_never_replaced(backups: Backups) -> None:
    key, target = backups.manifest_key("two"), MemoryStore()
    stranger = made(backups.keys).store.get(key)
    target.put(key, stranger)
    with pytest.raises(ForeignManifest):
        copy(backups, target)
    assert target.get(key) == stranger


def test_target_without_the_key_is_no_copy() -> None:
    backups = made(key_ring())
    with pytest.raises(KeyUnavailable):
        copy(backups, MemoryStore(), keys=key_ring("2024"))


def test_backup_that_is_gone_leaves_its_packs_to_the_next_removal(backups: Backups) -> None:
    target = MemoryStore()
    faulty = FaultyStore(target)
    faulty.on("put", ".manifest").raises(StoreUnreachable("away"))
    with pytest.raises(StoreUnreachable):
        copy(backups, faulty, "one")
    with backups.changed(backups.manifest_key("one"), None), pytest.raises(NotFound) as raised:
        copy(backups, target, "one")
    assert raised.value.reason == Reason.MANIFEST_MISSING
    assert mark_key(PREFIX, VOLUME, "one") in contents(target)


class Acting(MemoryStore):
    """A store in which something else happens right before a put."""

    def __init__(self, text: str, act: Callable[[MemoryStore], object]) -> None:
        super().__init__()
        self._text = text
        self._act: Callable[[MemoryStore], object] | None = act

    def put(self, key: str, body: bytes | bytearray | memoryview, lock: ObjectLock | None = None) -> None:
        """See ObjectStore."""
        if self._text in key and self._act is not None:
            act, self._act = self._act, None
            act(self)
        super().put(key, body, lock)


def test_backup_deleted_during_its_copy_is_no_damage(backups: Backups, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy_module, "COPY_THREADS", 1)
    packs = backups.keys_in_use("one")
    gone: Iterable[str] = [backups.manifest_key("one"), *packs]
    target = Acting("packs/", lambda _: backups.store.delete(gone))
    with pytest.raises(NotFound, match="deleted meanwhile"):
        copy(backups, target, "one")
    assert mark_key(PREFIX, VOLUME, "one") in contents(target)


def test_removal_in_the_target_starts_the_copy_again(backups: Backups) -> None:
    doomed = [backups.manifest_key("one"), *backups.keys_in_use("one")]
    target = Acting("two.manifest", lambda store: store.delete(doomed))
    copy(backups, target, "one")
    with pytest.raises(TransientError) as raised:
        copy(backups, target, "two")
    assert raised.value.reason == Reason.OVERTAKEN
    copy(backups, target, "two")
    assert backups.keys_in_use("two") <= set(contents(target))


def test_packs_that_vanish_after_the_manifest_are_sent_again(backups: Backups) -> None:
    pack = min(backups.keys_in_use("one"))
    target = Acting("two.manifest", lambda store: store.delete([pack]))
    copy(backups, target, "one")
    with pytest.raises(TransientError, match="not complete"):
        copy(backups, target, "two")
    copy(backups, target, "two")
    assert pack in contents(target)


def test_operations_that_the_crash_test_covers() -> None:
    backups, target = made(key_ring(), Counting()), Counting()
    copy(backups, target)
    operations: set[Operation] = set(target.calls)
    assert operations == {"put", "get", "list"}
