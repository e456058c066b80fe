"""After any order of backups, deletions, losses and crashes, the remaining backups restore byte for byte."""

from __future__ import annotations

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture.providers import HypothesisProvider
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from cinderblock.errors import Conflict
from cinderblock.repository.reference_cache import VolumeReferences
from tests.support.mover.backups import PREFIX, VOLUME
from tests.support.mover.parent_chains import ParentChain, a_line, name
from tests.support.store.faults import Crash, FaultyStore, Operation

MANY = 7
PATHS = [b"file-0", b"file-1", b"file-2", b"file-3"]


class Survivors(RuleBasedStateMachine):
    """Backups of one volume with files that appear, change and stay, and a cache of their references."""

    def __init__(self) -> None:
        super().__init__()
        self.line = ParentChain()
        self.known = VolumeReferences()
        self.count = 0

    @property
    def there(self) -> list[str]:
        """Return the backups that have a manifest."""
        keys = {found.key for found in self.line.backups.store.list("")}
        return [backup for backup in self.line.held if self.line.key(backup) in keys]

    @initialize(paths=st.lists(st.sampled_from(PATHS), min_size=2, max_size=4, unique=True))
    def begin_with_a_line(self, paths: list[bytes]) -> None:
        for path in paths:
            self.count += 1
            self.line.add(f"b-{self.count}", f"b-{self.count - 1}" if self.count > 1 else None, path)

    @precondition(lambda self: len(self.there) < MANY)
    @rule(data=st.data(), path=st.sampled_from(PATHS), full=st.booleans())
    def make(self, data: st.DataObject, path: bytes, full: bool) -> None:
        parents = self.there
        parent = None if full or not parents else data.draw(st.sampled_from(parents))
        self.count += 1
        self.line.add(f"b-{self.count}", parent, path)

    @precondition(lambda self: self.there)
    @rule(data=st.data())
    def lose_a_manifest(self, data: st.DataObject) -> None:
        """Remove a manifest like a user of an S3 client. Its packs stay."""
        backup = data.draw(st.sampled_from(self.there))
        self.line.backups.store.delete([self.line.key(backup)])

    @rule(data=st.data(), at=st.integers(0, 1), operation=st.sampled_from(["", "", "", "delete", "list", "get"]))
    def delete(self, data: st.DataObject, at: int, operation: str) -> None:
        """Delete a backup, also a lost or half deleted one, with or without a crash at a request."""
        backup = data.draw(st.sampled_from(list(self.line.held)))
        store = FaultyStore(self.line.backups.store)
        if operation:
            done, partway = data.draw(st.sampled_from([(False, None), (True, None), (False, 1)]))
            fault = store.on(operation, "")  # type: ignore[arg-type]
            fault.crashes(done=done, partway=partway if operation == "delete" else None).after(at)
        needed = self._needed(backup)
        try:
            self.line.remove(backup, store, self.known)
        except Crash:
            self.known = VolumeReferences()
        except Conflict:
            assert needed
        else:
            assert not needed
            assert not self.line.backups.pack_keys(backup)

    def _needed(self, backup: str) -> bool:
        others = [other for other in self.there if other != backup]
        packs = {key.split("/")[-2] for other in others for key in self.line.backups.keys_in_use(other)}
        return backup in packs

    @rule()
    def read_everything_back(self) -> None:
        for backup in self.there:
            assert self.line.read_back(backup) == self.line.held[backup]

    def teardown(self) -> None:
        self.read_everything_back()
        for backup in reversed(self.line.held):
            self.line.remove(backup, known=self.known)
        left = [found.key for found in self.line.backups.store.list("")]
        assert left == [], f"{left} of {VOLUME} below {PREFIX}"


def test_remaining_backups_restore(monkeypatch: pytest.MonkeyPatch) -> None:
    # The same stories in every run, whatever else was imported: see tests/simulation/test_event_order.py.
    monkeypatch.setattr(HypothesisProvider, "_maybe_draw_constant", lambda *_, **__: None)
    settings_of_run = settings(derandomize=True, max_examples=60, stateful_step_count=15, phases=[Phase.generate])
    run_state_machine_as_test(Survivors, settings=settings_of_run)


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("operation", ["get", "list", "delete"])
def test_removal_that_dies_at_any_request_is_repeated_and_loses_nothing(operation: Operation, done: bool) -> None:
    deaths = 0
    while True:
        line = a_line(4)
        for lost in (name(0), name(1)):
            line.backups.store.delete([line.key(lost)])
        store = FaultyStore(line.backups.store)
        store.on(operation, "").crashes(done=done).after(deaths)
        try:
            line.remove(name(3), store)
        except Crash:
            deaths += 1
        else:
            break
        assert line.remove(name(3)) >= 0
        assert line.read_back(name(2)) == line.held[name(2)]
        for kept in (name(1), name(0)):
            with pytest.raises(Conflict):
                line.remove(kept)
        for gone in (name(2), name(1), name(0)):
            line.remove(gone)
        assert list(line.backups.store.list("")) == []
    assert deaths >= 2
