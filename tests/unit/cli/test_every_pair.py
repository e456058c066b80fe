"""Every object of a store is put in the place of every other: each reader finds it, or gives back the true data.

Readers that have a status (the operator, its movers, incrementals, re-wrapping) find older manifests of the same backup
and unsealed ones as well. What a command line finds that has nothing but the bucket, docs/format.md says under "What an
attacker can do"; exactly what it says cannot be found is left out here.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import pytest

from cinderblock.api import layout
from cinderblock.api.mover import BackupMetadata, MoverOperation, MoverTask, StoreLocation, VolumeMode
from cinderblock.api.pins import ExpectedBackup
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.archiver.archiver import run_backup
from cinderblock.cli import store_arguments
from cinderblock.cli.main import main
from cinderblock.errors import CinderblockError, IntegrityError
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.manifest.reader import ManifestReader
from cinderblock.lifecycle import expected_manifest
from cinderblock.repository.resume import KEY_NAME
from cinderblock.repository.rewrap import run_rewrap
from cinderblock.repository.verify import run_verify
from cinderblock.store.memory import MemoryStore
from cinderblock.store.s3 import client
from tests.support.mover.backups import KEYS, NOON, key_ring
from tests.support.simulation.real_movers import RealMovers, found_in, volume
from tests.support.simulation.simulation import Simulation

SECOND_NAME = "0f8fad5b-d9cb-469f-a165-70867728950e"
LOCATION = StoreLocation(container="volumebackups")
STEPS = 600


@dataclass
class World:
    """Backups of three volumes in one store, and what is known of them.

    Attributes:
        simulation: the operator and its cluster.
        truth: what each VolumeBackup holds, by name.
        needs: keys of the objects that each needs, by name.
        other_versions: of a manifest: "older" and "unsealed" ones of the same ids, by kind and key.
    """

    simulation: Simulation
    truth: dict[str, str] = field(default_factory=dict)
    needs: dict[str, set[str]] = field(default_factory=dict)
    other_versions: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"older": {}, "unsealed": {}})

    @property
    def store(self) -> MemoryStore:
        return self.simulation.cluster.store

    @property
    def keys(self) -> KeyRing | None:
        return self.simulation.cluster.keys

    def model(self, name: str) -> VolumeBackup:
        return VolumeBackup.model_validate(self.simulation.get("VolumeBackup", name))

    def expected(self, name: str) -> ExpectedBackup:
        """What the operator expects of a backup."""
        store = BackupStore.model_validate(self.simulation.get("BackupStore", "default"))
        return expected_manifest.expected_of_status(self.model(name), store)

    def manifest(self, name: str) -> str:
        return self.model(name).status.manifest_key or ""

    def copy(self) -> MemoryStore:
        """The objects as they are, in a store of their own."""
        copied = MemoryStore()
        for info in self.store.list(""):
            copied.put(info.key, self.store.get(info.key))
        return copied

    def learn(self) -> None:
        """Take note of what each backup holds and needs."""
        for item in self.simulation.objects.all("VolumeBackup"):
            name = item["metadata"]["name"]
            key, expected = self.manifest(name), self.expected(name)
            reader = ManifestReader(lambda *range_, k=key: self.store.get(k, *range_), self.keys, expected, key)
            packs = {
                layout.pack_prefix("", expected.volume_id, reader.packs.origin(n).backup_id) + reader.packs.name(n)
                for n in range(len(reader.packs))
            }
            self.needs[name] = {key, *packs}
            self.truth[name] = self.simulation.cluster.kept[expected.backup_id]

    def make_other_versions(self) -> None:
        """Store packs of an older and of an unsealed backup of every id, and keep their manifests at hand."""
        for name in sorted(self.needs):
            expected = self.expected(name)
            kinds = {"older": self.keys if expected.sealed else None, "unsealed": None}
            for kind, keys in kinds.items():
                scratch = MemoryStore()
                back_up(scratch, expected, f"{kind}-{name}", keys)
                for info in scratch.list(""):
                    if info.key.endswith(".manifest"):
                        self.other_versions[kind][info.key] = scratch.get(info.key)
                    else:
                        self.store.put(info.key, scratch.get(info.key))

    @contextmanager
    def replaced(self, bodies: dict[str, bytes]) -> Iterator[None]:
        """While inside, objects hold something else."""
        before = {key: self.store.get(key) for key in bodies}
        for key, body in bodies.items():
            self.store.put(key, body)
        try:
            yield
        finally:
            for key, body in before.items():
                self.store.put(key, body)


def back_up(
    store: MemoryStore,
    expected: ExpectedBackup,
    content: str,
    keys: KeyRing | None,
    parent: tuple[str, ExpectedBackup] | None = None,
) -> None:
    """Have a real mover make a backup."""
    description = BackupMetadata(
        backup_id=expected.backup_id,
        volume_id=expected.volume_id,
        volume_name="data",
        volume_mode=VolumeMode.FILESYSTEM,
        volume_bytes=1 << 30,
        storage_class="fast",
        access_modes=["ReadWriteOnce"],
        created_at=NOON,
        data_timestamp=NOON,
    )
    task = MoverTask(
        operation=MoverOperation.BACKUP,
        store=LOCATION,
        volume_mode=VolumeMode.FILESYSTEM,
        path="",
        backup=description,
        manifest=layout.manifest_key("", expected.volume_id, expected.backup_id),
        parent_manifest=parent[0] if parent else None,
        expected_parent=parent[1] if parent else None,
        sealed=keys is not None,
    )
    run_backup(task, store, keys, opener=lambda *_: nullcontext(volume(content)))


def build(kind: str) -> World:
    """Volumes a and b with an incremental each, an import of a third volume's, and a second name of one of a's."""
    world = World(Simulation(cluster=RealMovers))
    simulation = world.simulation
    if kind == "sealed":
        simulation.encrypt(key_ring())
    simulation.claim("c", "c-one")
    left = simulation.backup("c-one", "c", deletionPolicy="Retain")["metadata"]["uid"]
    simulation.settle()
    simulation.delete("VolumeBackup", "c-one")
    for name in ("a", "b"):
        simulation.claim(name, f"{name}-one")
        simulation.backup(f"{name}-one", name)
    simulation.settle()
    simulation.import_backup("imported", left)
    simulation.import_backup("second", SECOND_NAME, manifest=world.manifest("a-one"))
    simulation.settle()
    if kind == "mixed":
        simulation.encrypt(key_ring())
    for name in ("a", "b"):
        simulation.write(name, f"{name}-two")
        simulation.backup(f"{name}-two", name, incremental=True)
    simulation.settle()
    world.learn()
    world.make_other_versions()
    assert len(world.truth) == 6
    return world


@pytest.fixture(scope="module", params=["unsealed", "sealed", "mixed"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    built = build(request.param)
    with built.simulation:
        yield built


@dataclass(frozen=True)
class Change:
    """Objects that hold something else.

    Attributes:
        name: what was done.
        bodies: by key.
        kind: "swap", "older" or "unsealed".
    """

    name: str
    bodies: dict[str, bytes]
    kind: str = "swap"

    def spoils(self, world: World, name: str) -> bool:
        """Whether something is changed that a backup needs."""
        return bool(world.needs[name] & self.bodies.keys())

    def is_of_manifests(self) -> bool:
        """Whether manifests are in the place of manifests."""
        return all(key.endswith(".manifest") for key in self.bodies)


def changes(world: World) -> Iterator[Change]:
    """Every pair of objects swapped; every manifest replaced by an older one and by one that is not sealed."""
    needed = sorted(set().union(*world.needs.values()))
    for one, other in combinations(needed, 2):
        yield Change(f"{one} <-> {other}", {one: world.store.get(other), other: world.store.get(one)})
    for kind, bodies in world.other_versions.items():
        for key, body in bodies.items():
            yield Change(f"{kind} {key}", {key: body}, kind)


def each_spoilt(world: World, wanted: Callable[[Change], bool] = lambda change: True) -> Iterator[tuple[Change, str]]:
    """Each change, while it is in force, with each backup that it spoils."""
    count = 0
    for change in filter(wanted, changes(world)):
        with world.replaced(change.bodies):
            for name in sorted(world.truth):
                if change.spoils(world, name):
                    count += 1
                    yield change, name
    assert count > 15


def restored(world: World, name: str) -> str | None:
    """What a VolumeRestore of a backup gives; None: it fails and leaves no volume of the asked name."""
    simulation = world.simulation
    simulation.restore("back", name, name="new")
    for _ in range(STEPS):
        if simulation.phase("VolumeRestore", "back") in ("available", "error_restoring"):
            break
        simulation.step()
    is_restorable = simulation.phase("VolumeRestore", "back") == "available"
    content = simulation.content("new") if is_restorable else None
    assert is_restorable == simulation.exists("PersistentVolumeClaim", "new")
    simulation.delete("VolumeRestore", "back")
    if is_restorable:
        simulation.delete("PersistentVolumeClaim", "new")
    for _ in range(STEPS):
        is_gone = simulation.phase("VolumeRestore", "back") == "gone"
        if is_gone and not simulation.exists("PersistentVolumeClaim", "new"):
            return content
        simulation.step()
    raise AssertionError(simulation.story())


def test_nothing_is_changed_and_everything_comes_back(world: World) -> None:
    for name, truth in world.truth.items():
        assert restored(world, name) == truth
        assert truth.partition("-")[0] == ("a" if name == "second" else "c" if name == "imported" else name[0])


def test_every_manifest_in_the_place_of_every_other(world: World) -> None:
    """A VolumeRestore: real observers, real decisions, a real mover."""
    for change, name in each_spoilt(world, lambda change: any(key.endswith(".manifest") for key in change.bodies)):
        assert restored(world, name) is None, f"{change.name}: {name}"


def test_every_pack_in_the_place_of_every_other(world: World) -> None:
    for change, name in each_spoilt(world, lambda change: all(key.startswith("packs/") for key in change.bodies)):
        assert restored(world, name) is None, f"{change.name}: {name}"


def test_verification_that_is_told_what_a_status_says(world: World) -> None:
    for change, name in each_spoilt(world):
        try:
            run_verify(world.store, "", world.manifest(name), world.expected(name), world.keys)
        except CinderblockError:
            continue
        raise AssertionError(f"{change.name}: {name} is called sound")


def test_an_incremental_is_built_on_the_true_parent_or_on_none(world: World) -> None:
    for change, name in each_spoilt(world):
        expected, copied, keys = world.expected(name), world.copy(), world.keys
        child = expected.model_copy(update={"backup_id": "child", "pins": None, "sealed": keys is not None})
        try:
            back_up(copied, child, "a-three", keys, (world.manifest(name), expected))
            key = layout.manifest_key("", child.volume_id, "child")
            run_verify(copied, "", key, child, keys)
        except CinderblockError:
            continue
        # It reads no packs of its parent, and so tells nothing of them: but the manifest was the true one.
        assert not any(key == world.manifest(name) for key in change.bodies), f"{change.name}: {name}"


def test_a_run_that_resumes_uses_no_key_that_is_not_its_own(world: World) -> None:
    """Every object in the place of the data key that an interrupted run has left."""
    keys = world.keys or key_ring()
    wanted = world.expected("a-one").model_copy(update={"backup_id": "new", "sealed": True, "pins": None})
    place = layout.pack_prefix("", wanted.volume_id, "new") + KEY_NAME
    for info in list(world.store.list("")):
        copied = world.copy()
        copied.put(place, copied.get(info.key))
        back_up(copied, wanted, "a-three", keys)
        run_verify(copied, "", layout.manifest_key("", wanted.volume_id, "new"), wanted, keys)
        assert place not in {left.key for left in copied.list("")}


def test_rewrapping_makes_nothing_true_that_is_not(world: World) -> None:
    ring = KeyRing(KEYS, "2024")
    for change, name in each_spoilt(world, lambda change: any(key.endswith(".manifest") for key in change.bodies)):
        key, expected, copied = world.manifest(name), world.expected(name), world.copy()
        if key not in change.bodies:
            continue
        with pytest.raises(CinderblockError):
            run_rewrap(copied, key, expected, ring)
        assert copied.get(key) == change.bodies[key], change.name


def test_rewrapping_keeps_what_a_status_says(world: World) -> None:
    for name in sorted(world.truth):
        expected, copied = world.expected(name), world.copy()
        if not expected.sealed:
            continue
        header = run_rewrap(copied, world.manifest(name), expected, KeyRing(KEYS, "2024"))
        assert header.key_id == "2024"
        run_verify(copied, "", world.manifest(name), expected, KeyRing(KEYS, "2024"))


def test_a_deletion_removes_nothing_of_others(world: World) -> None:
    """The operator deletes one backup after the other while manifests are swapped. Objects of other backups stay."""
    kind = "unsealed" if world.keys is None else "sealed" if world.expected("a-one").sealed else "mixed"
    for one, other in (("a-two", "b-two"), ("a-two", "a-one"), ("b-two", "imported")):
        fresh = build(kind)
        with fresh.simulation as simulation:
            keys = fresh.manifest(one), fresh.manifest(other)
            mine = {key for key in simulation.stored() if fresh.expected(one).backup_id in key}
            bodies = [fresh.store.get(key) for key in keys]
            for key, body in zip(keys, reversed(bodies), strict=True):
                fresh.store.put(key, body)
            before = set(simulation.stored())
            simulation.delete("VolumeBackup", one)
            for _ in range(STEPS):
                if simulation.phase("VolumeBackup", one) in ("gone", "error_deleting"):
                    break
                simulation.step()
            assert before - set(simulation.stored()) <= mine
            assert simulation.phase("VolumeBackup", one) == "error_deleting"


def test_a_status_that_is_lost_is_regained_from_the_true_manifest_or_says_so(world: World) -> None:
    """Without a status, nobody can tell an older manifest of a backup from the newest: a condition says so."""
    simulation = world.simulation
    for change, name in each_spoilt(world, Change.is_of_manifests):
        if world.manifest(name) not in change.bodies or name in ("second", "imported"):
            continue
        kept = simulation.get("VolumeBackup", name)["status"]
        simulation.erase_status("VolumeBackup", name)
        for _ in range(60):
            simulation.step()
        status = simulation.get("VolumeBackup", name)["status"]
        if status["phase"] == "available":
            is_regained = any(c["type"] == "PinRegained" and c["status"] == "True" for c in status["conditions"])
            cannot_be_found = change.kind == "older" or (change.kind == "unsealed" and world.keys is None)
            assert is_regained, change.name
            assert cannot_be_found, change.name
        else:
            assert status["phase"] in ("error", "creating"), change.name
            assert "pins" not in status, change.name
        simulation.objects.update(simulation.get("VolumeBackup", name), status=kept)


def test_an_import_takes_the_true_backup_of_a_key_or_none(world: World) -> None:
    """For an import, only the key and the seal rule are known: what a bare bucket hides stays hidden."""
    simulation = world.simulation
    for change, name in each_spoilt(world, Change.is_of_manifests):
        simulation.import_backup("probe", "6f9619ff-8b86-4d01-b42d-00cf4fc964ff", manifest=world.manifest(name))
        for _ in range(STEPS):
            if simulation.phase("VolumeBackup", "probe") in ("available", "error"):
                break
            simulation.step()
        if simulation.phase("VolumeBackup", "probe") == "available":
            is_in_its_place = world.manifest(name) in change.bodies
            is_hidden = change.kind == "older" or (change.kind == "unsealed" and world.keys is None)
            assert is_hidden or not is_in_its_place, f"{change.name}: {name}"
        simulation.delete("VolumeBackup", "probe")
        for _ in range(STEPS):
            if simulation.phase("VolumeBackup", "probe") == "gone":
                break
            simulation.step()


# -- the command line, which has no status


@pytest.fixture
def cli(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs a command line over the store of the world, with the keys that there are."""
    monkeypatch.setattr(store_arguments, "open_store", lambda *_: world.store)
    monkeypatch.setattr(client, "ambient_region", lambda: None)
    words: list[str] = []
    for key_id, key in (KEYS if world.keys is not None else {}).items():
        (tmp_path / key_id).write_bytes(base64.b64encode(key))
        words += ["--encryption-key-file", str(tmp_path / key_id)]
    return lambda *more: main([*more, "--from", "s3://volumebackups", *words])


def cannot_be_found(world: World, change: Change, name: str) -> bool:
    """What docs/format.md says of a reader that has nothing but the bucket and a key."""
    is_sealed = world.expected(name).sealed
    return change.kind == "older" or (change.kind == "unsealed" and not is_sealed)


def options(world: World, name: str) -> list[str]:
    """What a person must say of a backup from before there were keys."""
    return ["--allow-unsealed"] if world.keys is not None and not world.expected(name).sealed else []


def test_a_command_line_gives_back_the_true_data_or_an_error(
    world: World, cli: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    number = 0
    for change, name in each_spoilt(world):
        backup_id, digest = world.expected(name).backup_id, world.expected(name).pins
        assert digest is not None
        noted = ["--expect-digest", digest.content_digest]
        for more in ([], noted):
            if not more and cannot_be_found(world, change, name):
                continue
            number += 1
            target = tmp_path / str(number)
            words = [*options(world, name), *more]
            assert cli("restore", backup_id, "--target", str(target), *words) != 0, f"{change.name}: {name} {more}"
            assert cli("verify", backup_id, *words) != 0, f"{change.name}: {name} {more}"
    capsys.readouterr()
    assert number > 30


def test_a_command_line_that_is_told_the_digest_gives_back_what_nobody_has_changed(
    world: World, cli: Callable[..., int], tmp_path: Path
) -> None:
    for name, truth in world.truth.items():
        expected = world.expected(name)
        assert expected.pins is not None
        words = [*options(world, name), "--expect-digest", expected.pins.content_digest.upper()]
        assert cli("restore", expected.backup_id, "--target", str(tmp_path / name), *words) == 0
        assert found_in(tmp_path / name) == truth
        assert cli("verify", expected.backup_id, *words) == 0


def test_a_list_shows_what_is_in_the_place_of_another_as_damaged(
    world: World, cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    for change, name in each_spoilt(world, lambda change: change.kind == "swap"):
        key = world.manifest(name)
        if key not in change.bodies:
            continue
        capsys.readouterr()
        assert cli("list", "--json") == 5, change.name
        rows = {row["manifest"]: row for row in json.loads(capsys.readouterr().out)}
        assert not rows[key]["readable"], change.name
        assert cli("show", world.expected(name).backup_id, "--json") == 5, change.name


def test_what_the_commands_print_is_the_digest_that_a_status_has(
    world: World, cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in world.truth:
        expected = world.expected(name)
        assert expected.pins is not None
        for command in ("show", "verify"):
            capsys.readouterr()
            words = options(world, name) if command == "verify" else []
            assert cli(command, expected.backup_id, "--json", *words) == 0
            assert json.loads(capsys.readouterr().out)["contentDigest"] == expected.pins.content_digest


def test_the_error_names_the_object_what_it_is_and_what_was_expected(world: World) -> None:
    one, other = world.expected("a-one"), world.expected("b-one")
    bodies = {world.manifest("a-one"): world.store.get(world.manifest("b-one"))}
    with world.replaced(bodies), pytest.raises(IntegrityError) as caught:
        run_verify(world.store, "", world.manifest("a-one"), one, world.keys)
    for word in (world.manifest("a-one"), one.backup_id, other.backup_id, one.volume_id, other.volume_id):
        assert word in caught.value.message
