"""Random interleavings of imports, deletions, losses and crashes resurrect nothing and lose nothing."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.simulation.test_store_imports import ALWAYS, backups, lose_cluster, run, set_import
from tests.support.simulation.simulation import Simulation
from tests.support.store.faults import Crash
from tests.support.variations import some

STEPS = 12
NAMES = ("one", "two", "three", "four", "five")


class Walk:
    """A random walk through the life of a store that imports.

    Attributes:
        hidden: manifests that the bucket lacks for a while.
        released: ids whose VolumeBackup a person has deleted last.
    """

    def __init__(self, simulation: Simulation, seed: int) -> None:
        self.simulation = simulation
        self.dice = random.Random(seed)
        self.hidden: dict[str, bytes] = {}
        self.released: set[str] = set()

    def step(self) -> None:
        actions: list[Callable[[], None]] = [self.wait, self.delete, self.import_by_hand, self.hide, self.show]
        self.dice.choice([*actions, self.crash, self.restart])()
        self.check()

    def wait(self) -> None:
        run(self.simulation, self.dice.choice([1, 11, 25]))

    def delete(self) -> None:
        """Delete a VolumeBackup, which leaves its data. One that the operator removes just now counts for neither."""
        waiting = [item for item in self.simulation.objects.all("VolumeBackup") if _is_steady(item)]
        if waiting:
            item = self.dice.choice(waiting)
            self.simulation.delete("VolumeBackup", item["metadata"]["name"])
            self.released.add(item["spec"]["import"]["id"])

    def import_by_hand(self) -> None:
        present = set(backups(self.simulation).values())
        absent = [backup_id for backup_id in sorted(self.released - present) if self._key(backup_id)]
        if absent:
            backup_id = self.dice.choice(absent)
            self.simulation.import_backup(f"by-hand-{self.dice.random()}", backup_id, storeName="default")
            self.released.discard(backup_id)

    def hide(self) -> None:
        """Take a manifest out of the bucket, but leave most of them."""
        keys = self.simulation.stored("backups/")
        if len(self.hidden) < 2:
            key = self.dice.choice(keys)
            self.hidden[key] = self.simulation.cluster.store.get(key)
            self.simulation.cluster.store.delete([key])

    def show(self) -> None:
        for key, content in self.hidden.items():
            self.simulation.cluster.store.put(key, content)
        self.hidden.clear()

    def crash(self) -> None:
        self.simulation.faults.plan(self.dice.randrange(6), Crash("scripted"), done=self.dice.random() < 0.5)
        self.wait()
        self.simulation.faults.at = None

    def restart(self) -> None:
        self.simulation.restart()

    def check(self) -> None:
        found = [item for item in self.simulation.objects.all("VolumeBackup") if _is_steady(item)]
        ids = [item["spec"]["import"]["id"] for item in found]
        assert not self.released & set(ids), f"came back: {self.simulation.story()}"
        assert len(ids) == len(set(ids)), "one backup has one VolumeBackup"

    def end(self, all_ids: set[str]) -> None:
        """Show everything, and wait: whatever nobody has released must be there."""
        self.show()
        run(self.simulation, 45)
        self.check()
        assert set(backups(self.simulation).values()) == all_ids - self.released

    def _key(self, backup_id: str) -> bool:
        return any(backup_id in key for key in self.simulation.stored("backups/"))


def _is_steady(item: dict[str, dict[str, object]]) -> bool:
    return "deletionTimestamp" not in item["metadata"]


@pytest.mark.parametrize("seed", some(range(60), step=60))
def test_nothing_is_resurrected_and_nothing_is_lost(simulation: Simulation, seed: int) -> None:
    lose_cluster(simulation, *NAMES)
    keys = simulation.stored("backups/")
    ids = {key.rpartition("/")[2].removesuffix(".manifest") for key in keys}
    set_import(simulation, **ALWAYS)
    walk = Walk(simulation, seed)
    for _ in range(STEPS):
        walk.step()
    walk.end(ids)
    assert simulation.stored("backups/") == keys, "no data is deleted"
