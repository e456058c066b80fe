"""Every object of a store replaces every other one. Each reader detects that, or returns the true data.

Readers with a status (the operator, its movers, incremental backups, re-wrapping) also detect older and unencrypted
manifests of the same backup. A command line without a status cannot detect all changes: docs/reference/format.md lists
the others under "What an attacker can do", and these tests exclude exactly those.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import combinations, islice
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
from cinderblock.repository.verify.backup import run_verify
from cinderblock.store.memory import MemoryStore
from cinderblock.store.s3 import client
from tests.support.mover.backups import KEYS, NOON, key_ring
from tests.support.simulation.real_movers import RealMovers, found_in, volume
from tests.support.simulation.simulation import Simulation

SECOND_NAME = "0f8fad5b-d9cb-469f-a165-70867728950e"
LOCATION = StoreLocation(container="volumebackups")
STEPS = 600
STORES = ("unsealed", "sealed", "mixed")
"""Whether the backups are encrypted; mixed: the later ones."""

some_or_all_changes = pytest.mark.parametrize(
    "every", [pytest.param(3, id="a third"), pytest.param(1, id="all", marks=pytest.mark.long)]
)
"""Runs a test with a third of all changes, another third for each store, and in `make test-long` with all of them.

For the tests that run the whole operator for each change. `test_verification_with_the_pins_of_a_status` checks what a
reader accepts, and runs with all changes each time.
"""


@dataclass
class PopulatedStore:
    """Backups of three volumes in one store, and their expected content.

    Attributes:
        kind: one of STORES.
        simulation: the operator and its cluster.
        truth: what each VolumeBackup holds, by name.
        needs: keys of the objects that each needs, by name.
        other_versions: of a manifest: "older" and "unsealed" ones of the same ids, by kind and key.
    """

    kind: str
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
        """Return what the operator expects of a backup."""
        store = BackupStore.model_validate(self.simulation.get("BackupStore", "default"))
        return expected_manifest.expected_of_status(self.model(name), store)

    def manifest(self, name: str) -> str:
        return self.model(name).status.manifest_key or ""

    def copy(self) -> MemoryStore:
        """Copy the objects to another store."""
        copied = MemoryStore()
        for info in self.store.list(""):
            copied.put(info.key, self.store.get(info.key))
        return copied

    def learn(self) -> None:
        """Record the content of each backup and the objects that it needs."""
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
        """Store packs of an older and of an unencrypted backup of every id, and remember their manifests."""
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
        """Replace objects inside the block."""
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
    """Create a backup with a real mover."""
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


def build(kind: str) -> PopulatedStore:
    """Create volumes a and b with an incremental backup each, an import, and a second name for a backup of a."""
    populated = PopulatedStore(kind, Simulation(cluster=RealMovers))
    simulation = populated.simulation
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
    simulation.import_backup("second", SECOND_NAME, manifest=populated.manifest("a-one"))
    simulation.settle()
    if kind == "mixed":
        simulation.encrypt(key_ring())
    for name in ("a", "b"):
        simulation.write(name, f"{name}-two")
        simulation.backup(f"{name}-two", name, incremental=True)
    simulation.settle()
    populated.learn()
    populated.make_other_versions()
    assert len(populated.truth) == 6
    return populated


@pytest.fixture(scope="module", params=STORES)
def populated(request: pytest.FixtureRequest) -> Iterator[PopulatedStore]:
    built = build(request.param)
    with built.simulation:
        yield built


@dataclass(frozen=True)
class Change:
    """Replaced objects.

    Attributes:
        name: what was done.
        bodies: by key.
        kind: "swap", "older" or "unsealed".
    """

    name: str
    bodies: dict[str, bytes]
    kind: str = "swap"

    def affects(self, populated: PopulatedStore, name: str) -> bool:
        """Return whether an object that a backup needs is changed."""
        return bool(populated.needs[name] & self.bodies.keys())

    def is_of_manifests(self) -> bool:
        """Return whether manifests replace manifests."""
        return all(key.endswith(".manifest") for key in self.bodies)


def changes(populated: PopulatedStore) -> Iterator[Change]:
    """Yield swaps of every pair of objects, and replacements of manifests by older and by unencrypted ones."""
    needed = sorted(set().union(*populated.needs.values()))
    for one, other in combinations(needed, 2):
        yield Change(f"{one} <-> {other}", {one: populated.store.get(other), other: populated.store.get(one)})
    for kind, bodies in populated.other_versions.items():
        for key, body in bodies.items():
            yield Change(f"{kind} {key}", {key: body}, kind)


def each_affected(
    populated: PopulatedStore, selected: Callable[[Change], bool] = lambda change: True, every: int = 1
) -> Iterator[tuple[Change, str]]:
    """Yield one in ``every`` changes, applied, with each backup that it affects. Each store has a turn of its own."""
    count, first = 0, STORES.index(populated.kind) % every
    for change in islice(filter(selected, changes(populated)), first, None, every):
        with populated.replaced(change.bodies):
            for name in sorted(populated.truth):
                if change.affects(populated, name):
                    count += 1
                    yield change, name
    assert count > 15 // every


def restored(populated: PopulatedStore, name: str) -> str | None:
    """Return the content that a VolumeRestore produces; None if it fails and creates no volume."""
    simulation = populated.simulation
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


def test_without_changes_every_backup_is_restored(populated: PopulatedStore) -> None:
    for name, truth in populated.truth.items():
        assert restored(populated, name) == truth
        assert truth.partition("-")[0] == ("a" if name == "second" else "c" if name == "imported" else name[0])


@some_or_all_changes
def test_restore_with_every_manifest_in_the_place_of_every_other(populated: PopulatedStore, every: int) -> None:
    """Uses real gatherers, real decisions and a real mover."""
    for change, name in each_affected(
        populated, lambda change: any(key.endswith(".manifest") for key in change.bodies), every
    ):
        assert restored(populated, name) is None, f"{change.name}: {name}"


@some_or_all_changes
def test_restore_with_every_pack_in_the_place_of_every_other(populated: PopulatedStore, every: int) -> None:
    for change, name in each_affected(
        populated, lambda change: all(key.startswith("packs/") for key in change.bodies), every
    ):
        assert restored(populated, name) is None, f"{change.name}: {name}"


def test_verification_with_the_pins_of_a_status(populated: PopulatedStore) -> None:
    for change, name in each_affected(populated):
        try:
            run_verify(populated.store, "", populated.manifest(name), populated.expected(name), populated.keys)
        except CinderblockError:
            continue
        raise AssertionError(f"{change.name}: {name} is called sound")


def test_incremental_backup_uses_the_true_parent_or_none(populated: PopulatedStore) -> None:
    for change, name in each_affected(populated):
        expected, copied, keys = populated.expected(name), populated.copy(), populated.keys
        child = expected.model_copy(update={"backup_id": "child", "pins": None, "sealed": keys is not None})
        try:
            back_up(copied, child, "a-three", keys, (populated.manifest(name), expected))
            key = layout.manifest_key("", child.volume_id, "child")
            run_verify(copied, "", key, child, keys)
        except CinderblockError:
            continue
        # It reads no packs of its parent, and so tells nothing of them: but the manifest was the true one.
        assert not any(key == populated.manifest(name) for key in change.bodies), f"{change.name}: {name}"


def test_resumed_backup_uses_only_its_own_data_key(populated: PopulatedStore) -> None:
    """Every object replaces the data key of an interrupted backup."""
    keys = populated.keys or key_ring()
    selected = populated.expected("a-one").model_copy(update={"backup_id": "new", "sealed": True, "pins": None})
    place = layout.pack_prefix("", selected.volume_id, "new") + KEY_NAME
    for info in list(populated.store.list("")):
        copied = populated.copy()
        copied.put(place, copied.get(info.key))
        back_up(copied, selected, "a-three", keys)
        run_verify(copied, "", layout.manifest_key("", selected.volume_id, "new"), selected, keys)
        assert place not in {left.key for left in copied.list("")}


def test_rewrapping_does_not_validate_replaced_manifests(populated: PopulatedStore) -> None:
    ring = KeyRing(KEYS, "2024")
    for change, name in each_affected(
        populated, lambda change: any(key.endswith(".manifest") for key in change.bodies)
    ):
        key, expected, copied = populated.manifest(name), populated.expected(name), populated.copy()
        if key not in change.bodies:
            continue
        with pytest.raises(CinderblockError):
            run_rewrap(copied, key, expected, ring)
        assert copied.get(key) == change.bodies[key], change.name


def test_rewrapping_keeps_the_pins_of_a_status(populated: PopulatedStore) -> None:
    for name in sorted(populated.truth):
        expected, copied = populated.expected(name), populated.copy()
        if not expected.sealed:
            continue
        header = run_rewrap(copied, populated.manifest(name), expected, KeyRing(KEYS, "2024"))
        assert header.key_id == "2024"
        run_verify(copied, "", populated.manifest(name), expected, KeyRing(KEYS, "2024"))


def test_deletion_keeps_objects_of_other_backups(populated: PopulatedStore) -> None:
    """The operator deletes one backup after the other while manifests are swapped."""
    for one, other in (("a-two", "b-two"), ("a-two", "a-one"), ("b-two", "imported")):
        fresh = build(populated.kind)
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


@some_or_all_changes
def test_lost_status_is_rebuilt_from_the_true_manifest_or_warns(populated: PopulatedStore, every: int) -> None:
    """Without a status, an older manifest of the same backup is accepted, and a condition warns about that."""
    simulation = populated.simulation
    for change, name in each_affected(populated, Change.is_of_manifests, every):
        if populated.manifest(name) not in change.bodies or name in ("second", "imported"):
            continue
        kept = simulation.get("VolumeBackup", name)["status"]
        simulation.erase_status("VolumeBackup", name)
        for _ in range(60):
            simulation.step()
        status = simulation.get("VolumeBackup", name)["status"]
        if status["phase"] == "available":
            is_regained = any(c["type"] == "PinRegained" and c["status"] == "True" for c in status["conditions"])
            cannot_be_found = change.kind == "older" or (change.kind == "unsealed" and populated.keys is None)
            assert is_regained, change.name
            assert cannot_be_found, change.name
        else:
            assert status["phase"] in ("error", "creating"), change.name
            assert "pins" not in status, change.name
        simulation.objects.update(simulation.get("VolumeBackup", name), status=kept)


def test_import_takes_the_true_backup_of_a_key_or_none(populated: PopulatedStore) -> None:
    """An import knows only the key of the manifest and whether the backup must be encrypted."""
    simulation = populated.simulation
    for change, name in each_affected(populated, Change.is_of_manifests):
        simulation.import_backup("probe", "6f9619ff-8b86-4d01-b42d-00cf4fc964ff", manifest=populated.manifest(name))
        for _ in range(STEPS):
            if simulation.phase("VolumeBackup", "probe") in ("available", "error"):
                break
            simulation.step()
        if simulation.phase("VolumeBackup", "probe") == "available":
            is_in_its_place = populated.manifest(name) in change.bodies
            is_hidden = change.kind == "older" or (change.kind == "unsealed" and populated.keys is None)
            assert is_hidden or not is_in_its_place, f"{change.name}: {name}"
        simulation.delete("VolumeBackup", "probe")
        for _ in range(STEPS):
            if simulation.phase("VolumeBackup", "probe") == "gone":
                break
            simulation.step()


# The command line, which has no status


@pytest.fixture
def cli(populated: PopulatedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Return a function that runs a command line with this store and its keys."""
    monkeypatch.setattr(store_arguments, "open_store", lambda *_: populated.store)
    monkeypatch.setattr(client, "ambient_region", lambda: None)
    words: list[str] = []
    for key_id, key in (KEYS if populated.keys is not None else {}).items():
        (tmp_path / key_id).write_bytes(base64.b64encode(key))
        words += ["--encryption-key-file", str(tmp_path / key_id)]
    return lambda *more: main([*more, "--from", "s3://volumebackups", *words])


def cannot_be_found(populated: PopulatedStore, change: Change, name: str) -> bool:
    """Return whether a reader with only bucket and key cannot notice a change, as docs/reference/format.md says."""
    is_sealed = populated.expected(name).sealed
    return change.kind == "older" or (change.kind == "unsealed" and not is_sealed)


def options(populated: PopulatedStore, name: str) -> list[str]:
    """Return the options for a backup that was made before encryption was enabled."""
    return ["--allow-unsealed"] if populated.keys is not None and not populated.expected(name).sealed else []


def test_restore_command_gives_the_true_data_or_an_error(
    populated: PopulatedStore, cli: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    number = 0
    for change, name in each_affected(populated):
        backup_id, digest = populated.expected(name).backup_id, populated.expected(name).pins
        assert digest is not None
        noted = ["--expect-digest", digest.content_digest]
        for more in ([], noted):
            if not more and cannot_be_found(populated, change, name):
                continue
            number += 1
            target = tmp_path / str(number)
            words = [*options(populated, name), *more]
            assert cli("restore", backup_id, "--target", str(target), *words) != 0, f"{change.name}: {name} {more}"
            assert cli("verify", backup_id, *words) != 0, f"{change.name}: {name} {more}"
    capsys.readouterr()
    assert number > 30


def test_restore_command_with_a_digest_detects_every_change(
    populated: PopulatedStore, cli: Callable[..., int], tmp_path: Path
) -> None:
    for name, truth in populated.truth.items():
        expected = populated.expected(name)
        assert expected.pins is not None
        words = [*options(populated, name), "--expect-digest", expected.pins.content_digest.upper()]
        assert cli("restore", expected.backup_id, "--target", str(tmp_path / name), *words) == 0
        assert found_in(tmp_path / name) == truth
        assert cli("verify", expected.backup_id, *words) == 0


def test_list_shows_replaced_manifests_as_damaged(
    populated: PopulatedStore, cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    for change, name in each_affected(populated, lambda change: change.kind == "swap"):
        key = populated.manifest(name)
        if key not in change.bodies:
            continue
        capsys.readouterr()
        assert cli("list", "--json") == 5, change.name
        rows = {row["manifest"]: row for row in json.loads(capsys.readouterr().out)}
        assert not rows[key]["readable"], change.name
        assert cli("show", populated.expected(name).backup_id, "--json") == 5, change.name


def test_commands_print_the_digest_of_the_status(
    populated: PopulatedStore, cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in populated.truth:
        expected = populated.expected(name)
        assert expected.pins is not None
        for command in ("show", "verify"):
            capsys.readouterr()
            words = options(populated, name) if command == "verify" else []
            assert cli(command, expected.backup_id, "--json", *words) == 0
            assert json.loads(capsys.readouterr().out)["contentDigest"] == expected.pins.content_digest


def test_error_names_the_object_and_the_expected_one(populated: PopulatedStore) -> None:
    one, other = populated.expected("a-one"), populated.expected("b-one")
    bodies = {populated.manifest("a-one"): populated.store.get(populated.manifest("b-one"))}
    with populated.replaced(bodies), pytest.raises(IntegrityError) as caught:
        run_verify(populated.store, "", populated.manifest("a-one"), one, populated.keys)
    for word in (populated.manifest("a-one"), one.backup_id, other.backup_id, one.volume_id, other.volume_id):
        assert word in caught.value.message
