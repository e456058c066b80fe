"""Two clusters and one bucket: whose marker it has, what each may do, and that nothing is lost or comes back."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from cinderblock.api.layout import owner_key
from cinderblock.errors import AccessDenied, StoreUnreachable
from cinderblock.store.memory import MemoryStore
from tests.simulation.test_store_imports import ALWAYS, backups, imported, run, set_import, store_status
from tests.support.simulation.api import Object
from tests.support.simulation.simulation import POLICY, Simulation, is_restorable
from tests.support.store.faults import Crash
from tests.support.variations import some

STEPS = 14
_MARKER = {"format": 1, "cluster": "c", "release": "", "epoch": "e", "since": "2026-05-04T12:00:00Z"}
FORGED = [
    json.dumps(_MARKER | change).encode()
    for change in (
        {"since": "2026-05-04T12:00:00"},
        {"cluster": "c\nReady"},
        {"release": "r" * 254},
        {"epoch": ""},
        {"cluster": "c" * 65},
    )
]
"""Markers that would invalidate a status, or a message for people."""


@pytest.fixture
def pair() -> Iterator[tuple[Simulation, Simulation]]:
    """Return two clusters whose BackupStores lead to one bucket. No object of one has a UID of the other."""
    with Simulation() as first, Simulation() as second:
        second.cluster.store = first.cluster.store
        second.cluster.needs, second.cluster.held = first.cluster.needs, first.cluster.held
        for number, simulation in enumerate((first, second)):
            simulation.objects._uids = (number + 1) * 100_000
            simulation.make("Namespace", {"metadata": {"name": "kube-system"}})
            simulation.claim("data", f"content of {number}")
            set_import(simulation, mode="Never")
        yield first, second


def uid(simulation: Simulation) -> str:
    return str(simulation.get("Namespace", "kube-system")["metadata"]["uid"])


def marker(simulation: Simulation) -> Object:
    content: Object = json.loads(simulation.cluster.store.get(owner_key("")))
    return content


def state(simulation: Simulation) -> str:
    return str(store_status(simulation).get("owner", {}).get("state", ""))


def ready(simulation: Simulation) -> tuple[str, str]:
    return shown(simulation, "Ready")


def shown(simulation: Simulation, kind: str) -> tuple[str, str]:
    found = next((c for c in store_status(simulation)["conditions"] if c["type"] == kind), None)
    return (found["status"], found["reason"]) if found else ("", "")


def change(simulation: Simulation, **spec: object) -> None:
    store = simulation.get("BackupStore", "default")
    simulation.objects.update(store, spec=store["spec"] | spec)


def made(simulation: Simulation, name: str) -> str:
    """Make a backup, and return how it ends."""
    simulation.backup(name, "data")
    run(simulation, 2)
    return simulation.phase("VolumeBackup", name)


def test_store_gets_a_marker_at_its_first_check(pair: tuple[Simulation, Simulation]) -> None:
    first, _ = pair
    run(first)
    assert marker(first)["cluster"] == uid(first) == store_status(first)["owner"]["cluster"]
    assert state(first) == "Own"
    before = first.cluster.store.get(owner_key(""))
    first.restart()
    run(first, 30)
    assert first.cluster.store.get(owner_key("")) == before


def test_read_only_store_gets_no_marker(pair: tuple[Simulation, Simulation]) -> None:
    first, _ = pair
    change(first, access="ReadOnly")
    run(first)
    assert not list(first.cluster.store.list("meta/"))
    assert ready(first) == ("True", "Answers")


def test_new_store_in_a_place_of_another_cluster_is_refused(pair: tuple[Simulation, Simulation]) -> None:
    first, second = pair
    assert made(first, "one") == "available"
    assert made(second, "two") == "error"
    assert ready(second) == ("False", "ForeignOwner")
    assert state(second) == "Foreign"
    assert "spec.takeOver" in second.get("VolumeBackup", "two")["status"]["conditions"][0]["message"]
    assert ("ForeignOwner", 1) in second.events()
    assert len(first.stored("backups/")) == 1
    # Even so, it may read what is there.
    set_import(second, mode="Once")
    run(second, 2)
    assert imported(second) == ("True", "Imported")
    second.restore("back", "one", name="copy")
    run(second, 2)
    assert second.phase("VolumeRestore", "back") == "available"


def test_takeover_names_the_epoch_and_works_once(pair: tuple[Simulation, Simulation]) -> None:
    first, second = pair
    assert made(first, "one") == "available"
    run(second)
    change(second, takeOver="no-such-epoch")
    run(second, 15)
    assert state(second) == "Foreign"
    change(second, takeOver=store_status(second)["owner"]["epoch"])
    run(second, 2)
    assert state(second) == "Own"
    assert marker(second)["cluster"] == uid(second)
    assert made(second, "two") == "available"
    # The other cluster works on, and says so. The same takeover counts for nothing a second time.
    first.restart()
    run(first, 15)
    assert state(first) == "Disputed"
    change(first, takeOver=store_status(first)["owner"]["epoch"])
    run(first, 15)
    second.restart()
    run(second, 15)
    assert (state(first), state(second)) == ("Own", "Disputed")
    assert made(second, "three") == "available"


@pytest.mark.parametrize("done", [False, True])
def test_operator_that_dies_at_the_marker_completes_it(pair: tuple[Simulation, Simulation], done: bool) -> None:
    first, second = pair
    first.faults.plan(0, Crash("scripted"), done=done)
    run(first)
    assert state(first) == "Own"
    run(second)
    second.faults.plan(0, Crash("scripted"), done=done)
    change(second, takeOver=store_status(second)["owner"]["epoch"])
    run(second, 2)
    assert (state(second), marker(second)["cluster"]) == ("Own", uid(second))


def test_upgrade_of_two_clusters_with_one_prefix_stops_neither(pair: tuple[Simulation, Simulation]) -> None:
    """Both have made backups there before there were markers."""
    first, second = pair
    for simulation in pair:
        simulation.objects.delete(simulation.get("Namespace", "kube-system"))
        simulation.restart()
        assert made(simulation, "old") == "available"
    for number, simulation in enumerate(pair):
        simulation.objects._uids = (number + 5) * 100_000
        simulation.make("Namespace", {"metadata": {"name": "kube-system"}})
        simulation.restart()
        run(simulation, 2)
    assert (state(first), state(second)) == ("Own", "Disputed")
    assert ready(second) == ("True", "Answers")
    assert shown(second, "ForeignOwner") == ("True", "ForeignOwner")
    assert made(second, "new") == "available"
    second.delete("VolumeBackup", "old")
    run(second, 2)
    assert second.phase("VolumeBackup", "old") == "gone", "its own data may go"


def test_foreign_data_is_not_deleted_while_another_cluster_owns_it(pair: tuple[Simulation, Simulation]) -> None:
    first, second = pair
    key = imported_from_first(pair)
    # Both have used the store: only the marker of the first is there.
    assert state(second) == "Disputed"
    second.delete("VolumeBackup", "theirs")
    run(second, 90)
    condition = second.get("VolumeBackup", "theirs")["status"]["conditions"][0]
    assert condition["reason"] == "ForeignOwner"
    assert key in first.stored("backups/")
    change(second, takeOver=store_status(second)["owner"]["epoch"])
    run(second, 90)
    assert second.phase("VolumeBackup", "theirs") == "gone"
    assert key not in first.stored("backups/")


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 100_000, b'{"format": 2}', b"\xff\xfe", b"null", *FORGED])
def test_marker_that_nobody_can_read_stops_nothing(pair: tuple[Simulation, Simulation], content: bytes) -> None:
    first, _ = pair
    first.cluster.store.put(owner_key(""), content)
    assert made(first, "one") == "available"
    assert shown(first, "ForeignOwner") == ("Unknown", "IntegrityError")
    assert first.cluster.store.get(owner_key("")) == content, "nothing unknown is overwritten"


def test_silent_store_keeps_what_is_known_about_its_owner(pair: tuple[Simulation, Simulation]) -> None:
    first, second = pair
    assert made(first, "one") == "available"
    run(second)
    second.restart()
    second.store.error = StoreUnreachable("no route to host")
    run(second, 15)
    assert state(second) == "Foreign"
    second.store.error = None
    run(second, 15)
    assert ready(second) == ("False", "ForeignOwner")


def test_denied_marker_stops_nothing(pair: tuple[Simulation, Simulation]) -> None:
    first, _ = pair

    def deny(operation: str, key: str) -> None:
        if key == owner_key(""):
            raise AccessDenied("the policy of the bucket does not permit meta/")

    first.store.before = deny
    assert made(first, "one") == "available"
    assert shown(first, "ForeignOwner") == ("Unknown", "AccessDenied")


def imported_from_first(pair: tuple[Simulation, Simulation]) -> str:
    """Let the second cluster share the store of the first, import its backup, and return the key of its manifest."""
    first, second = pair
    assert made(first, "one") == "available"
    [key] = first.stored("backups/")
    second.cluster.store = MemoryStore()
    assert made(second, "two") == "available"
    second.cluster.store = first.cluster.store
    second.restart()
    run(second, 2)
    backup_id = first.get("VolumeBackup", "one")["metadata"]["uid"]
    second.import_backup("theirs", backup_id, storeName="default", deletionPolicy="Delete")
    run(second, 2)
    assert second.phase("VolumeBackup", "theirs") == "available"
    return key


def test_held_deletion_ends_when_the_owner_has_deleted_the_data(pair: tuple[Simulation, Simulation]) -> None:
    first, second = pair
    imported_from_first(pair)
    second.delete("VolumeBackup", "theirs")
    run(second, 2)
    assert second.get("VolumeBackup", "theirs")["status"]["conditions"][0]["reason"] == "ForeignOwner"
    first.delete("VolumeBackup", "one")
    run(first, 2)
    assert not first.stored("backups/")
    run(second, 90)
    assert second.phase("VolumeBackup", "theirs") == "gone"


@pytest.mark.parametrize("is_known", [False, True])
def test_unreadable_marker_holds_only_what_is_known_to_be_foreign(
    pair: tuple[Simulation, Simulation], is_known: bool
) -> None:
    """Before there were markers, a policy that denies meta/ kept no data of imported backups."""
    first, second = pair
    key = imported_from_first(pair)
    if not is_known:
        store = second.get("BackupStore", "default")
        second.objects.update(store, status={k: v for k, v in store["status"].items() if k != "owner"})

    def deny(operation: str, key: str) -> None:
        if key == owner_key(""):
            raise AccessDenied("the policy of the bucket does not permit meta/")

    second.store.before = deny
    second.restart()
    second.delete("VolumeBackup", "theirs")
    run(second, 2)
    assert second.phase("VolumeBackup", "theirs") == ("deleting" if is_known else "gone")
    assert (key in first.stored("backups/")) is is_known


def test_rebuilt_cluster_takes_over_with_an_epoch_from_git(pair: tuple[Simulation, Simulation]) -> None:
    """The manifest of the store names the epoch of the lost cluster, in which it had no effect."""
    lost, rebuilt = pair
    run(lost)
    manifest = {"takeOver": store_status(lost)["owner"]["epoch"]}
    change(lost, **manifest)
    assert made(lost, "one") == "available"
    assert state(lost) == "Own"
    change(rebuilt, **manifest)
    set_import(rebuilt, **ALWAYS)
    assert made(rebuilt, "two") == "available"
    assert state(rebuilt) == "Own"
    assert ready(rebuilt) == ("True", "Answers")
    run(rebuilt, 11)
    assert "one" in backups(rebuilt)


def test_cluster_that_only_reads_can_end_the_warning(pair: tuple[Simulation, Simulation]) -> None:
    """The importing cluster was upgraded first, so it got the marker. Its owner takes the place over."""
    owner, reader = pair
    set_import(reader, **ALWAYS)
    run(reader)
    assert state(reader) == "Own"
    run(owner)
    change(owner, takeOver=store_status(owner)["owner"]["epoch"])
    run(owner, 2)
    assert made(owner, "one") == "available"
    reader.restart()
    run(reader, 11)
    assert (state(owner), state(reader)) == ("Own", "Disputed")
    assert shown(reader, "ForeignOwner")[0] == "True"
    change(reader, access="ReadOnly")
    run(reader, 11)
    assert ready(reader) == ("True", "Answers")
    assert shown(reader, "ForeignOwner") == ("", "")
    assert "one" in backups(reader)


def test_downgrade_and_upgrade_stop_no_backups(pair: tuple[Simulation, Simulation]) -> None:
    """The earlier release knows no markers: it drops status.owner, and makes backups in the place of the other one."""
    first, second = pair
    assert made(first, "one") == "available"
    run(second)
    assert state(second) == "Foreign"
    second.objects.delete(second.get("Namespace", "kube-system"))
    store = second.get("BackupStore", "default")
    kept = {name: value for name, value in store["status"].items() if name not in ("owner", "access")}
    second.objects.update(store, status=kept)
    second.restart()
    assert made(second, "old") == "available"
    second.objects._uids = 700_000
    second.make("Namespace", {"metadata": {"name": "kube-system"}})
    second.restart()
    assert made(second, "new") == "available"
    assert state(second) == "Disputed"


def test_takeover_that_fails_for_a_while_needs_no_resync(
    pair: tuple[Simulation, Simulation], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    run(first)
    run(second)

    def fail(key: str, body: object, lock: object = None) -> None:
        raise StoreUnreachable("no route to host")

    with monkeypatch.context() as patch:
        patch.setattr(second.store, "put", fail)
        change(second, takeOver=store_status(second)["owner"]["epoch"])
        for _ in range(3):
            second.step()
        assert state(second) == "Foreign"
    run(second, 3)
    assert state(second) == "Own"


def test_name_that_no_marker_can_have_stops_nothing() -> None:
    with Simulation(policy=replace(POLICY, release="Our_operator")) as simulation:
        simulation.make("Namespace", {"metadata": {"name": "kube-system"}})
        simulation.claim("data", "content")
        assert made(simulation, "one") == "available"
        assert marker(simulation)["release"] == ""


def test_cluster_that_may_not_read_its_uid_marks_nothing(simulation: Simulation) -> None:
    assert made(simulation, "one") == "available"
    assert not list(simulation.cluster.store.list("meta/"))
    assert "owner" not in store_status(simulation)


@dataclass
class Side:
    """One of two clusters in a random walk.

    Attributes:
        simulation: the cluster.
        own: content ids that it made and did not delete, by name.
        released: ids that its person has deleted with the data left.
    """

    simulation: Simulation
    own: dict[str, str] = field(default_factory=dict)
    released: set[str] = field(default_factory=set)


class Walk:
    """Random actions of two people and two operators on one bucket.

    Attributes:
        alive: ids of the backups whose data nobody was permitted to delete.
    """

    def __init__(self, pair: tuple[Simulation, Simulation], seed: int) -> None:
        self.dice = random.Random(seed)
        self.sides = [Side(simulation) for simulation in pair]
        self.alive: set[str] = set()

    def step(self, number: int) -> None:
        side = self.dice.choice(self.sides)
        self.dice.choice([self.wait, self.back_up, self.delete, self.release, self.expire, self.crash, self.restart])(
            side, number
        )
        self.check()

    def wait(self, side: Side, number: int) -> None:
        run(side.simulation, self.dice.choice([1, 11, 25]))

    def back_up(self, side: Side, number: int) -> None:
        name = f"b{number}"
        made = side.simulation.backup(name, "data", incremental=bool(side.own) and self.dice.random() < 0.5)
        run(side.simulation, 2)
        if side.simulation.phase("VolumeBackup", name) == "available":
            side.own[name] = made["metadata"]["uid"]
            self.alive.add(made["metadata"]["uid"])

    def delete(self, side: Side, number: int) -> None:
        """Delete a VolumeBackup with its data."""
        self._end(side, self.dice.choice([*side.own, ""]), keeps_data=False)

    def release(self, side: Side, number: int) -> None:
        """Delete any VolumeBackup, and leave the data."""
        names = sorted(backups(side.simulation))
        self._end(side, self.dice.choice([*names, ""]), keeps_data=True)

    def expire(self, side: Side, number: int) -> None:
        name = self.dice.choice([*side.own, ""])
        if name:
            self.alive.discard(side.own.pop(name))
            side.simulation.expire(name)
            run(side.simulation, 2)

    def crash(self, side: Side, number: int) -> None:
        side.simulation.faults.plan(self.dice.randrange(6), Crash("scripted"), done=self.dice.random() < 0.5)
        run(side.simulation, 11)
        side.simulation.faults.at = None

    def restart(self, side: Side, number: int) -> None:
        side.simulation.restart()

    def _end(self, side: Side, name: str, *, keeps_data: bool) -> None:
        if not name:
            return
        item = side.simulation.get("VolumeBackup", name)
        if "deletionTimestamp" in item["metadata"]:
            return
        backup_id = item["spec"].get("import", {}).get("id") or item["metadata"]["uid"]
        if keeps_data:
            side.simulation.objects.update(item, spec=item["spec"] | {"deletionPolicy": "Retain"})
            side.released.add(backup_id)
        else:
            self.alive.discard(backup_id)
        side.own.pop(name, None)
        side.simulation.delete("VolumeBackup", name)
        run(side.simulation, 2)

    def check(self) -> None:
        for side in self.sides:
            steady = [
                item
                for item in side.simulation.objects.all("VolumeBackup")
                if "deletionTimestamp" not in item["metadata"]
            ]
            ids = [item["spec"].get("import", {}).get("id") or item["metadata"]["uid"] for item in steady]
            assert not side.released & set(ids), f"came back: {side.simulation.story()}"
            assert len(ids) == len(set(ids)), "one backup has one VolumeBackup"

    def end(self) -> None:
        """Wait: each cluster sees all backups but those that its person has released, and each can be restored."""
        for _ in range(3):
            for side in self.sides:
                run(side.simulation, 25)
        self.check()
        for side in self.sides:
            found = {
                item["spec"].get("import", {}).get("id") or item["metadata"]["uid"]
                for item in side.simulation.objects.all("VolumeBackup")
                if item["status"]["phase"] == "available"
            }
            assert found >= self.alive - side.released, side.simulation.story()
            for backup_id in sorted(self.alive):
                assert is_restorable(side.simulation, backup_id)


@pytest.mark.parametrize("seed", some(range(40), step=20))
def test_two_clusters_lose_and_resurrect_nothing(pair: tuple[Simulation, Simulation], seed: int) -> None:
    walk = Walk(pair, seed)
    for number, simulation in enumerate(pair):
        simulation.cluster.store = MemoryStore()
        assert made(simulation, f"first-{number}") == "available"
    objects = [(item.key, s.cluster.store.get(item.key)) for s in pair for item in s.cluster.store.list("")]
    both = MemoryStore()
    for key, content in objects:
        both.put(key, content)
    for number, simulation in enumerate(pair):
        simulation.cluster.store = both
        set_import(simulation, **ALWAYS)
        name = f"first-{number}"
        backup_id = simulation.get("VolumeBackup", name)["metadata"]["uid"]
        walk.sides[number].own[name] = backup_id
        walk.alive.add(backup_id)
    for number in range(STEPS):
        walk.step(number)
    walk.end()
