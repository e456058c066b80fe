"""Random stories of a fleet with real movers: what stays restores byte for byte, and in the end the bucket is empty."""

from __future__ import annotations

import random
from functools import partial

import pytest

from cinderblock.api.layout import pack_prefix
from cinderblock.api.pins import ExpectedBackup
from cinderblock.format import pack
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.manifest.reader import ManifestReader
from cinderblock.repository.objects import list_manifests
from tests.support.mover.backups import KEYS, key_ring
from tests.support.simulation.real_movers import RealMovers, shared
from tests.support.simulation.simulation import Simulation, api_outage
from tests.support.store.faults import Crash
from tests.support.store.format_reader import FormatReader

ACTS = ("backup", "backup", "backup", "full", "expire", "expire", "delete", "crash", "damage", "stop")


class Story:
    """One story.

    Attributes:
        simulation: the cluster.
        count: backups so far.
        damaged: sound manifests in whose place there is a damaged one.
    """

    def __init__(self, simulation: Simulation, seed: int) -> None:
        self.simulation = simulation
        self.random = random.Random(seed)
        self.count = 0
        self.damaged: dict[str, bytes] = {}

    def names(self, *phases: str) -> list[str]:
        items = self.simulation.objects.all("VolumeBackup")
        wanted = [item for item in items if item.get("status", {}).get("phase") in phases]
        return sorted(item["metadata"]["name"] for item in wanted if "deletionTimestamp" not in item["metadata"])

    def act(self) -> None:
        """Do one thing, and let the cluster continue for a while or until nothing happens."""
        kind, available = self.random.choice(ACTS), self.names("available")
        if kind in ("backup", "full"):
            self.count += 1
            self.simulation.write("data", f"shop-{self.count}")
            self.simulation.backup(f"b{self.count}", "data", incremental=kind == "backup" and bool(available))
        elif kind == "expire" and available:
            self.simulation.expire(*self.random.sample(available, self.random.randint(1, min(3, len(available)))))
        elif kind == "delete" and (some := self.names("available", "error")):
            self.simulation.delete("VolumeBackup", self.random.choice(some))
        elif kind == "crash":
            error = self.random.choice([Crash("scripted"), api_outage()])
            self.simulation.faults.plan(self.random.randrange(12), error, done=self.random.random() < 0.5)
        elif kind == "damage":
            self.damage_or_repair(available)
        elif kind == "stop":
            self.stop_a_mover()
        if self.random.random() < 0.5:
            for _ in range(self.random.randrange(12)):
                self.simulation.step()
        else:
            self.simulation._rest()
        self.check()

    def damage_or_repair(self, available: list[str]) -> None:
        if self.damaged or not available:
            self.repair()
            return
        key = self.simulation.get("VolumeBackup", self.random.choice(available))["status"]["manifestKey"]
        self.damaged[key] = self.simulation.cluster.store.get(key)
        content = bytearray(self.damaged[key])
        content[-1] ^= 1
        self.simulation.cluster.store.put(key, content)

    def repair(self) -> None:
        for key, content in self.damaged.items():
            if key in self.simulation.stored(key):
                self.simulation.cluster.store.put(key, content)
        self.damaged.clear()

    def stop_a_mover(self) -> None:
        bad = [move for move in self.simulation.cluster.moves() if move.is_bad and "dies" in move.name]
        if bad:
            self.simulation.move(self.random.choice(bad))

    def check(self) -> None:
        """Check that all packs exist that sound manifests list, and that all sound backups can be restored."""
        cluster, store = self.simulation.cluster, self.simulation.cluster.store
        stored = {found.key for found in store.list("")}
        for found in list_manifests(store, ""):
            if found.key in self.damaged:
                continue
            expected = ExpectedBackup(volume_id=found.volume_id, backup_id=found.backup_id)
            packs = ManifestReader(partial(store.get, found.key), cluster.keys, expected, found.key).packs
            for number in range(len(packs)):
                key = pack_prefix("", found.volume_id, packs.origin(number).backup_id) + packs.name(number)
                assert key in stored, f"{found.key} lists {key}\n{self.simulation.story()}"
            content = cluster.kept[found.backup_id]
            entries = FormatReader(store.get, "", KEYS).entries(found.key)
            files = {entry.path: bytes(entry.content) for entry in entries}
            assert (files[b"content"], files[b"shared"]) == (content.encode(), shared(content))

    def finish(self) -> None:
        """Repair everything, let all backups go, and check that nothing is left."""
        self.repair()
        self.simulation._rest()
        self.check()
        for name in self.names("error"):
            self.simulation.delete("VolumeBackup", name)
        self.simulation.expire(*self.names("available"))
        self.simulation._rest()
        assert self.simulation.objects.all("VolumeBackup") == [], self.simulation.story()
        assert self.simulation.stored() == [], self.simulation.story()


def tell(seed: int, keys: KeyRing | None, acts: int) -> Story:
    with Simulation(cluster=RealMovers) as simulation:
        if keys is not None:
            simulation.encrypt(keys)
        simulation.claim("data", "shop-0")
        story = Story(simulation, seed)
        for _ in range(acts):
            story.act()
        story.finish()
    return story


@pytest.fixture(autouse=True)
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each file packs of its own, so that some packs of a backup stay and others go."""
    monkeypatch.setattr(pack, "PACK_BYTES", 100)


@pytest.mark.parametrize("keys", [None, key_ring()], ids=["unsealed", "sealed"])
@pytest.mark.parametrize("seed", range(4))
def test_fleet_survives_a_random_story(seed: int, keys: KeyRing | None) -> None:
    tell(seed, keys, acts=12)


@pytest.mark.long
@pytest.mark.parametrize("keys", [None, key_ring()], ids=["unsealed", "sealed"])
@pytest.mark.parametrize("seed", range(100, 300))
def test_fleet_survives_a_long_random_story(seed: int, keys: KeyRing | None) -> None:
    tell(seed, keys, acts=30)


@pytest.mark.parametrize("how", ["expired", "person"])
def test_manifest_of_a_complete_backup_that_is_not_listed_holds_its_volume(how: str) -> None:
    """A store may answer an old list, or be the copy of a lost bucket, which is not complete yet."""
    with Simulation(cluster=RealMovers) as simulation:
        simulation.claim("data", "shop-0")
        simulation.backup("full", "data")
        simulation.settle()
        for number in (1, 2):
            simulation.write("data", f"shop-{number}")
            simulation.backup(f"b{number}", "data", incremental=True)
            simulation.settle()
        story, going = Story(simulation, 0), {"full"}
        if how == "person":
            # Packs of b1 are then needed by b2 alone.
            simulation.expire("b1")
            simulation.settle()
        key = simulation.get("VolumeBackup", "b2")["status"]["manifestKey"]
        content = simulation.cluster.store.get(key)
        simulation.cluster.store.delete([key])
        if how == "person":
            simulation.delete("VolumeBackup", "full")
        else:
            going.add("b1")
            simulation.expire(*going)
        simulation.settle()
        for name in going:
            condition = simulation.get("VolumeBackup", name)["status"]["conditions"][0]
            assert condition["reason"] == "ReferencesUnknown"
            assert "no manifest of VolumeBackup b2. Put the manifest back" in condition["message"]
        simulation.cluster.store.put(key, content)
        story.check()
        simulation.settle()
        story.check()
        # A person's deletion waits for dependents.
        assert simulation.phase("VolumeBackup", "full") == ("deleting" if how == "person" else "gone")
        simulation.delete("VolumeBackup", "b2")
        simulation.settle()
        assert (simulation.objects.all("VolumeBackup"), simulation.stored()) == ([], [])


def test_backup_whose_manifest_is_lost_can_be_deleted_and_holds_nothing_more() -> None:
    with Simulation(cluster=RealMovers) as simulation:
        simulation.claim("data", "shop-0")
        for name in ("first", "second"):
            simulation.backup(name, "data")
            simulation.settle()
        simulation.cluster.store.delete([simulation.get("VolumeBackup", "second")["status"]["manifestKey"]])
        simulation.delete("VolumeBackup", "first")
        simulation.settle()
        assert simulation.reason("VolumeBackup", "first") == "ReferencesUnknown"
        simulation.delete("VolumeBackup", "second")
        simulation.settle()
        assert (simulation.objects.all("VolumeBackup"), simulation.stored()) == ([], [])
