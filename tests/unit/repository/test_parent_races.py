"""A parent that is removed while a backup builds on it: whatever the order of requests, no pack is missing in the end.

Nothing but the store connects the two here, as with a backup of the command line. Two-way switches between the two at
each pair of requests cover every order that matters: each side only checks what the other has done before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import product

import pytest

from cinderblock.errors import BackupNeeded, IntegrityError, NotFound
from cinderblock.format.range_reader import Buffer
from cinderblock.store.base import ObjectLock, ObjectStore
from tests.support.mover.backups import Backups
from tests.support.mover.parent_chains import ParentChain, a_line, name
from tests.support.store.faults import Crash, FaultyStore
from tests.support.store.paused import Ended

Side = Callable[[ParentChain, ObjectStore], object]
PARENT, CHILD = name(1), name(2)


def make_child(line: ParentChain, store: ObjectStore) -> None:
    mover = Backups(store)
    mover.pins = line.backups.pins
    mover.back_up(line.volume, CHILD, PARENT)


def with_change(line: ParentChain) -> ParentChain:
    """Change the volume, so that the next backup has packs of its own and lists those of all others."""
    line.volume.add(b"changed", (0, b"changed" * 99), stamp=99)
    line.held[CHILD] = {path: b"".join(data for _, data in file.segments) for path, file in line.volume.files.items()}
    return line


def expire_parent(line: ParentChain, store: ObjectStore) -> None:
    line.expire([PARENT], store)


def expire_both(line: ParentChain, store: ObjectStore) -> None:
    line.expire([name(0), PARENT], store)


def delete_parent(line: ParentChain, store: ObjectStore) -> None:
    line.remove(PARENT, store)


REMOVALS: dict[str, Side] = {"expire": expire_parent, "expire both": expire_both, "delete": delete_parent}


def requests(side: Side) -> int:
    line = with_change(a_line(2))
    ended = Ended(partial(side, line), line.backups.store, None)
    ended.finish()
    return ended.store.count


def race(removal: Side, begins: str, first: int, second: int) -> str:
    """Run one side to a request, the other one to one of its own, then both to their ends. Return what became of it."""
    line = with_change(a_line(2))
    sides = (make_child, removal) if begins == "backup" else (removal, make_child)
    one = Ended(partial(sides[0], line), line.backups.store, first)
    other = Ended(partial(sides[1], line), line.backups.store, second)
    one.finish()
    other.finish()
    mover, remover = (one, other) if begins == "backup" else (other, one)
    line.check()
    if CHILD in line.there():
        assert mover.error is None
    else:
        assert isinstance(mover.error, NotFound | IntegrityError), mover.error
        line.remove(CHILD)
    assert isinstance(remover.error, BackupNeeded | None), remover.error
    outcome = "child" if CHILD in line.there() else "no child"
    line.expire([*line.there(), *((PARENT,) if remover.error is None else ())])
    assert list(line.backups.store.list("")) == []
    return outcome


def races(removal: str, begins: str, stride: int) -> Counter[str]:
    backup, remover = requests(make_child), requests(REMOVALS[removal])
    counts = (backup, remover) if begins == "backup" else (remover, backup)
    pairs = [*product(range(counts[0]), range(counts[1] + 1))]
    return Counter(race(REMOVALS[removal], begins, *pair) for pair in pairs[::stride])


@pytest.mark.parametrize("begins", ["backup", "removal"])
@pytest.mark.parametrize("removal", REMOVALS)
def test_no_order_of_requests_loses_a_pack(removal: str, begins: str) -> None:
    outcomes = races(removal, begins, stride=7)
    assert outcomes.keys() == {"child", "no child"}


@pytest.mark.long
@pytest.mark.parametrize("begins", ["backup", "removal"])
@pytest.mark.parametrize("removal", REMOVALS)
def test_no_order_of_requests_at_all_loses_a_pack(removal: str, begins: str) -> None:
    outcomes = races(removal, begins, stride=1)
    assert outcomes.keys() == {"child", "no child"}


class LatePut(FaultyStore):
    """A store in which the parent is removed right before the manifest of the child is uploaded."""

    def __init__(self, line: ParentChain) -> None:
        super().__init__(line.backups.store)
        self._line = line

    def put(self, key: str, body: Buffer, lock: ObjectLock | None = None) -> None:
        if key.endswith(f"{CHILD}.manifest"):
            self._line.expire([name(0), PARENT])
        super().put(key, body, lock)


def test_mover_that_died_before_its_check_is_withdrawn_by_the_next_run() -> None:
    line = a_line(2)
    line.volume.add(b"changed", (0, b"changed" * 99), stamp=99)
    store = LatePut(line)
    store.on("put", f"{CHILD}.manifest").crashes(done=True)
    first, again = Backups(store), Backups(line.backups.store)
    first.pins = again.pins = line.backups.pins
    with pytest.raises(Crash):
        first.back_up(line.volume, CHILD, PARENT)
    assert line.backups.manifest_key(CHILD) in {found.key for found in line.backups.store.list("")}
    with pytest.raises(NotFound, match="the parent was removed during the backup"):
        again.back_up(line.volume, CHILD, PARENT)
    assert line.backups.manifest_key(CHILD) not in {found.key for found in line.backups.store.list("")}
