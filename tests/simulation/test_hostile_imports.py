"""spec.import next to other stores, hostile manifests and wrong listings: nothing comes back, and nothing stops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import pytest

from cinderblock.controller.imports import reconcile
from cinderblock.errors import AccessDenied, ObjectArchived, PermanentError
from cinderblock.lifecycle.imports import releases
from cinderblock.reasons import Reason
from tests.simulation.test_store_imports import (
    ALWAYS,
    ONCE,
    backups,
    imported,
    lose_cluster,
    manifest_of,
    run,
    set_import,
    store_status,
)
from tests.support.recovery.lost_clusters import put
from tests.support.simulation.cluster import NAMESPACE
from tests.support.simulation.simulation import POLICY, Simulation

ODD_TIMES = ("2026-05-04T00:00:00", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00")


@pytest.mark.parametrize("time", ODD_TIMES)
def test_manifest_with_an_odd_time_stops_no_import(simulation: Simulation, time: str) -> None:
    """A time without a zone cannot be compared with others, and one at the end of the calendar not converted."""
    lose_cluster(simulation, "one")
    odd = datetime.fromisoformat(time)
    put(simulation.cluster.store, "odd", namespace=NAMESPACE, prefix="", volume="odd", data_timestamp=odd)
    set_import(simulation, **ALWAYS, newerThan="30d")
    run(simulation)
    assert imported(simulation) == ("True", "Imported")
    assert "one" in backups(simulation)


@pytest.fixture
def few_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trim the marks of released backups at each import."""
    monkeypatch.setattr(releases, "TRIM_FROM", 1)


@pytest.mark.usefixtures("few_marks")
@pytest.mark.parametrize("left", [0, 1])
def test_marks_survive_a_listing_that_lacks_most_backups(simulation: Simulation, left: int) -> None:
    lose_cluster(simulation, "one", "two", "three", "four")
    set_import(simulation, **ALWAYS)
    run(simulation)
    for name in ("one", "two"):
        simulation.delete("VolumeBackup", name)
    run(simulation, 15)
    gone = {key: simulation.cluster.store.get(key) for key in simulation.stored("backups/")[left:]}
    simulation.cluster.store.delete(list(gone))
    run(simulation, 15)
    for key, content in gone.items():
        simulation.cluster.store.put(key, content)
    run(simulation, 25)
    assert sorted(backups(simulation)) == ["four", "three"]


@pytest.mark.usefixtures("few_marks")
def test_mark_of_a_deletion_during_an_import_survives_it(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_cluster(simulation, "one", "two", "three", "four")
    set_import(simulation, **ALWAYS)
    run(simulation)
    for name in ("two", "three", "four"):
        simulation.remove_by_force(name)
    monkeypatch.setattr(reconcile, "STEP_SECONDS", 0.0)
    while imported(simulation) != ("False", "Importing"):
        simulation.step()
    simulation.delete("VolumeBackup", "one")
    run(simulation, 25)
    assert sorted(backups(simulation)) == ["four", "three", "two"]


def test_two_importing_stores_leave_each_others_backups_alone(simulation: Simulation) -> None:
    lose_cluster(simulation, "one", "two", "three")
    set_import(simulation, **ALWAYS)
    spec = simulation.get("BackupStore", "default")["spec"]
    other = {"metadata": {"name": "other", "namespace": NAMESPACE}, "spec": spec | {"prefix": "elsewhere"}}
    simulation.objects.create("BackupStore", other)
    run(simulation)
    simulation.cluster.store.delete([manifest_of(simulation, "one")])
    run(simulation, 25)
    assert sorted(backups(simulation)) == ["three", "two"]


def test_volumebackup_that_does_not_parse_stops_no_import(simulation: Simulation) -> None:
    lose_cluster(simulation, "one", "two")
    metadata = {"name": "one", "namespace": NAMESPACE}
    simulation.objects.create("VolumeBackup", {"metadata": metadata, "spec": {"import": {"id": 7}}})
    set_import(simulation, **ONCE)
    run(simulation)
    assert imported(simulation) == ("True", "Imported")
    assert len(backups(simulation)) == 3


def test_import_leaves_room_for_backups_of_the_namespace() -> None:
    with Simulation(policy=replace(POLICY, object_limit=10)) as simulation:
        simulation.claim("data", "content")
        lose_cluster(simulation, *(f"lost-{number}" for number in range(10)))
        set_import(simulation, **ALWAYS)
        run(simulation)
        assert imported(simulation) == ("False", "TooManyObjects")
        simulation.backup("own", "data")
        run(simulation, 5)
        assert simulation.phase("VolumeBackup", "own") == "available"


@pytest.mark.parametrize("error", [AccessDenied("denied"), ObjectArchived("archived")])
def test_manifest_that_cannot_be_fetched_costs_the_others_nothing(
    simulation: Simulation, error: PermanentError
) -> None:
    """A writer can encrypt one object with a key of his own, or a rule of the bucket can archive it."""
    lose_cluster(simulation, "one", "two")
    refused = simulation.stored("backups/")[0]
    simulation.store.before = _refuse(refused, error)
    set_import(simulation, **ONCE)
    run(simulation)
    assert len(backups(simulation)) == 1
    (unreadable,) = store_status(simulation)["inventory"]["unreadable"]
    assert (unreadable["manifest"], unreadable["reason"]) == (refused, error.reason)
    simulation.store.before = None
    run(simulation, 75)
    assert (len(backups(simulation)) == 2) is (error.reason == Reason.ACCESS_DENIED), "rights may come later"


def _refuse(refused: str, error: PermanentError) -> Callable[[str, str], None]:
    def before(operation: str, key: str) -> None:
        if (operation, key) == ("get", refused):
            raise error

    return before
