"""After any order of backups, expiries, deletions, losses, damage and crashes, all backups that stay restore."""

from __future__ import annotations

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture.providers import HypothesisProvider
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cinderblock.errors import Conflict, NotFound, ReferencesUnknown
from cinderblock.format import pack
from cinderblock.repository.objects import MARK_NAME
from cinderblock.repository.reference_cache import VolumeReferences
from tests.support.mover.backups import key_ring
from tests.support.mover.parent_chains import ParentChain, a_line, name
from tests.support.store.faults import Crash, FaultyStore, Operation

MANY = 8
PATHS = [b"file-0", b"file-1", b"file-2", b"file-3"]
OPERATIONS: list[Operation] = ["get", "list", "put", "delete"]


class Fleet(RuleBasedStateMachine):
    """Backups of one volume, of which some expire, some are deleted by people, and some are never finished.

    Attributes:
        line: the backups.
        known: what the operator remembers; a crash loses it.
        damaged: sound manifests in whose place there is a damaged one, by backup.
        expired: backups that were about to expire when the process died; the next attempt takes them along.
        unfinished: interrupted backups, with their parents.
        lost: backups whose manifest was removed manually.
    """

    keys = None

    def __init__(self) -> None:
        super().__init__()
        self.line = ParentChain()
        self.line.backups.keys = self.keys
        self.known = VolumeReferences()
        self.count = 0
        self.damaged: dict[str, bytes] = {}
        self.expired: set[str] = set()
        self.unfinished: dict[str, str | None] = {}
        self.lost: set[str] = set()

    def sound(self) -> list[str]:
        return [backup for backup in self.line.there() if backup not in self.damaged]

    @initialize(paths=st.lists(st.sampled_from(PATHS), min_size=2, max_size=4, unique=True))
    def begin_with_a_line(self, paths: list[bytes]) -> None:
        for path in paths:
            self.count += 1
            self.line.add(f"b-{self.count}", f"b-{self.count - 1}" if self.count > 1 else None, path)

    @precondition(lambda self: len(self.line.there()) < MANY)
    @rule(data=st.data(), path=st.sampled_from(PATHS), full=st.sampled_from([False, False, True]))
    def make(self, data: st.DataObject, path: bytes, full: bool) -> None:
        parents = [backup for backup in self.sound() if backup not in self.expired]
        self.count += 1
        self.line.add(f"b-{self.count}", None if full or not parents else data.draw(st.sampled_from(parents)), path)

    @precondition(lambda self: len(self.line.there()) < MANY and self.sound())
    @rule(data=st.data(), path=st.sampled_from(PATHS))
    def begin(self, data: st.DataObject, path: bytes) -> None:
        """Begin an incremental backup whose mover dies before the manifest is written."""
        self.count += 1
        backup, parent = f"b-{self.count}", data.draw(st.sampled_from(self.sound()))
        store = FaultyStore(self.line.backups.store)
        store.on("put", ".manifest").crashes()
        inner, self.line.backups.store = self.line.backups.store, store
        with pytest.raises(Crash):
            self.line.add(backup, parent, path)
        self.line.backups.store = inner
        self.unfinished[backup] = parent

    @precondition(lambda self: self.unfinished)
    @rule(data=st.data(), path=st.sampled_from(PATHS))
    def continue_it(self, data: st.DataObject, path: bytes) -> None:
        """Continue an interrupted backup. If its parent is gone, it has no manifest afterwards."""
        backup = data.draw(st.sampled_from(sorted(self.unfinished)))
        parent = self.unfinished[backup]
        if parent not in self.damaged:
            try:
                self.line.add(backup, parent, path)
            except NotFound:
                assert parent not in self.line.there()
            else:
                del self.unfinished[backup]

    @precondition(lambda self: self.sound())
    @rule(data=st.data())
    def lose_a_manifest(self, data: st.DataObject) -> None:
        """Remove a manifest like a user of an S3 client. Its packs stay."""
        backup = data.draw(st.sampled_from(self.sound()))
        self.line.backups.store.delete([self.line.key(backup)])
        self.lost.add(backup)

    @precondition(lambda self: self.sound() and not self.damaged)
    @rule(data=st.data())
    def damage(self, data: st.DataObject) -> None:
        backup = data.draw(st.sampled_from(self.sound()))
        key = self.line.key(backup)
        self.damaged[backup] = self.line.backups.store.get(key)
        content = bytearray(self.damaged[backup])
        content[-1] ^= 1
        self.line.backups.store.put(key, content)

    @precondition(lambda self: self.damaged)
    @rule()
    def repair(self) -> None:
        for backup, content in self.damaged.items():
            if backup in self.line.there():
                self.line.backups.store.put(self.line.key(backup), content)
        self.damaged.clear()

    @rule(
        data=st.data(),
        at=st.integers(0, 9),
        operation=st.sampled_from([None, None, *OPERATIONS]),
        how=st.sampled_from([(False, None), (True, None), (False, 1)]),
    )
    def expire(self, data: st.DataObject, at: int, operation: Operation | None, how: tuple[bool, int | None]) -> None:
        """Remove any set of backups, together with those of an attempt that died, with or without another crash."""
        there = self.line.there()
        chosen = data.draw(st.sets(st.sampled_from(there), max_size=4)) if there else set()
        self.expired |= chosen
        done, partway = how
        store = FaultyStore(self.line.backups.store)
        if operation is not None:
            store.on(operation).crashes(done=done, partway=partway if operation == "delete" else None).after(at)
        try:
            gone = self.line.expire(self.expired, store, self.known)
        except Crash:
            self.known = VolumeReferences()
        except ReferencesUnknown:
            assert self.damaged.keys() - self.expired
        else:
            assert gone.keys() == self.expired
            assert not self.expired & set(self.line.there())
            self.expired.clear()
            self.damaged = {backup: self.damaged[backup] for backup in self.damaged if backup in self.line.there()}

    @rule(data=st.data(), at=st.integers(0, 3), operation=st.sampled_from([None, None, None, *OPERATIONS]))
    def delete(self, data: st.DataObject, at: int, operation: Operation | None) -> None:
        """Delete a backup as a person does, with or without a crash, and repeat that at once."""
        backup = data.draw(st.sampled_from(list(self.line.held)))
        if backup in self.unfinished or backup in self.expired:
            return
        store = FaultyStore(self.line.backups.store)
        if operation is not None:
            store.on(operation).crashes(done=at % 2 == 0).after(at)
        try:
            try:
                self.line.remove(backup, store, self.known)
            except Crash:
                self.known = VolumeReferences()
                self.line.remove(backup, None, self.known)
        except ReferencesUnknown:
            assert self.damaged.keys() - {backup}
            if backup not in self.line.there():
                # The attempt that died knew what the damaged one lists. The packs wait for another attempt.
                self.lost.add(backup)
        except Conflict:
            # The cache remembers what a damaged one listed.
            assert backup in self.needed() or self.damaged.keys() - {backup}
        else:
            self.lost.discard(backup)
            self.damaged.pop(backup, None)

    def needed(self) -> set[str]:
        """Return the backups whose packs others list: read by the full reader."""
        keys = (key for other in self.sound() for key in self.line.backups.keys_in_use(other) if other not in key)
        return {key.split("/")[-2] for key in keys}

    @invariant()
    def everything_restores(self) -> None:
        stored = {found.key for found in self.line.backups.store.list("")}
        for backup in self.sound():
            assert self.line.backups.keys_in_use(backup) <= stored, f"{backup} lists packs that are gone"
            assert self.line.read_back(backup) == self.line.held[backup]

    def teardown(self) -> None:
        self.repair()
        self.everything_restores()
        self.line.expire(self.expired | set(self.line.there()), known=self.known)
        assert self.line.there() == []
        left = [found.key for found in self.line.backups.store.list("")]
        mine = self.lost | self.unfinished.keys()
        # The last one to list inherited packs may have lost its manifest.
        marked = {key.split("/")[-2] for key in left if key.endswith(MARK_NAME)} if self.lost else set()
        assert {key.split("/")[-2] for key in left} <= mine | marked, f"{left} beside those of {mine}"
        for backup in mine:
            self.line.remove(backup)
        assert list(self.line.backups.store.list("")) == []


class SealedFleet(Fleet):
    """The same with sealed backups."""

    keys = key_ring()


def run(fleet: type[Fleet], monkeypatch: pytest.MonkeyPatch, *, examples: int, steps: int) -> None:
    # The same stories in every run, whatever else was imported: see tests/simulation/test_event_order.py.
    monkeypatch.setattr(HypothesisProvider, "_maybe_draw_constant", lambda *_, **__: None)
    # Each file gets packs of its own, so that some packs of a backup stay and others go.
    monkeypatch.setattr(pack, "PACK_BYTES", 100)
    settings_of_run = settings(
        derandomize=True, max_examples=examples, stateful_step_count=steps, phases=[Phase.generate], deadline=None
    )
    run_state_machine_as_test(fleet, settings=settings_of_run)


@pytest.mark.parametrize("fleet", [Fleet, SealedFleet])
def test_backups_that_stay_restore(fleet: type[Fleet], monkeypatch: pytest.MonkeyPatch) -> None:
    run(fleet, monkeypatch, examples=25, steps=15)


@pytest.mark.long
@pytest.mark.parametrize("fleet", [Fleet, SealedFleet])
def test_backups_that_stay_restore_after_many_orders(fleet: type[Fleet], monkeypatch: pytest.MonkeyPatch) -> None:
    run(fleet, monkeypatch, examples=1500, steps=40)


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_expiry_that_dies_at_any_request_is_repeated(operation: Operation, done: bool) -> None:
    deaths = 0
    while True:
        line = a_line(5)
        line.expire([name(0)])
        store = FaultyStore(line.backups.store)
        store.on(operation).crashes(done=done).after(deaths)
        going = [name(1), name(3), name(4)]
        try:
            line.expire(going, store)
        except Crash:
            deaths += 1
            line.check()
        else:
            break
        assert line.expire(going) == {name(1): 1, name(3): 0, name(4): 0}
        line.check()
        line.expire([name(2)])
        assert list(line.backups.store.list("")) == []
    assert deaths >= 1
