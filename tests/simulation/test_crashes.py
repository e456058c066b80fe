"""Crashes of the operator or a mover before or after any write do not change the final state.

The writes of the operator are those to the API server and the removals of objects from the store. An undisturbed run
counts them. tests/unit/repository/test_crash_points.py does the same to the real mover.
"""

from __future__ import annotations

from typing import Any
from unittest.mock import ANY

import pytest

from cinderblock.format.manifest.comparison import Comparison
from tests.support.simulation.moments import Moments, some_or_all_moments
from tests.support.simulation.simulation import Simulation, summary
from tests.support.simulation.write_faults import FAULTS, Part, run_scenario
from tests.support.store.faults import Crash
from tests.support.variations import pairs_in_turn, some


def _volume(simulation: Simulation) -> None:
    simulation.claim("data", "first")


def _full(simulation: Simulation) -> None:
    _volume(simulation)
    simulation.backup("full", "data")
    simulation.settle()
    simulation.cluster.contents[simulation.get("PersistentVolumeClaim", "data")["spec"]["volumeName"]] = "second"


def _chain(simulation: Simulation) -> None:
    _full(simulation)
    simulation.backup("child", "data", incremental=True)
    simulation.settle()


def _restored(simulation: Simulation) -> None:
    _full(simulation)
    simulation.restore("again", "full", name="new")
    simulation.settle()


def _delete_both(simulation: Simulation) -> None:
    simulation.delete("VolumeBackup", "full")
    simulation.delete("VolumeBackup", "child")


def _delete_during_restore(simulation: Simulation) -> None:
    """Delete a backup during a restore: the restore ends, then the backup is removed."""
    simulation.restore("again", "full", name="new")
    while (
        simulation.phase("VolumeRestore", "again") == "None"
        or simulation.reason("VolumeRestore", "again") != "MoverRunning"
    ):
        simulation.step()
    simulation.delete("VolumeBackup", "full")


def _refused(simulation: Simulation) -> None:
    _volume(simulation)
    simulation.pod("web", "data")


def _retained(simulation: Simulation) -> None:
    _volume(simulation)
    simulation.backup("full", "data", deletionPolicy="Retain")
    simulation.settle()


def _damaged(simulation: Simulation) -> None:
    _chain(simulation)
    simulation.damage_pack("full")


def _two_backups(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.backup("child", "data", incremental=True)


def _two_restores(simulation: Simulation) -> None:
    simulation.restore("a", "full", name="new")
    simulation.restore("b", "full", name="new")


SCENARIOS: dict[str, tuple[Part, Part]] = {
    "create": (_volume, lambda s: s.backup("full", "data")),
    "create, forced": (_refused, lambda s: s.backup("full", "data", force=True)),
    "create, refused": (_refused, lambda s: s.backup("full", "data")),
    "create, two at once": (_volume, _two_backups),
    "create, incremental": (_full, lambda s: s.backup("child", "data", incremental=True)),
    "restore to a new volume": (_full, lambda s: s.restore("again", "full", name="new")),
    "restore to a volume that is bound late": (
        _full,
        lambda s: s.restore("again", "full", name="new", storageClassName="late"),
    ),
    "restore to an existing volume": (_full, lambda s: s.restore("again", "full", volumeId="data")),
    "two restores to one name": (_full, _two_restores),
    "delete": (_full, lambda s: s.delete("VolumeBackup", "full")),
    "delete parent and child": (_chain, _delete_both),
    "delete, retaining the data": (_retained, lambda s: s.delete("VolumeBackup", "full")),
    "delete during a restore": (_full, _delete_during_restore),
    "verify the structure": (_chain, lambda s: s.verify("proof", "Structure", volumeId="data")),
    "verify the data": (_chain, lambda s: s.verify("proof", "Data", backupId="child")),
    "verify damaged data": (_damaged, lambda s: s.verify("proof", "Data", volumeId="data")),
}

END: dict[str, dict[str, Any]] = {
    "create": {"phases": {"full": "available"}, "claims": {"data": "first"}},
    "create, forced": {"phases": {"full": "available"}, "claims": {"data": "first"}},
    "create, refused": {"phases": {"full": "error"}, "claims": {"data": "first"}},
    "create, two at once": {"phases": {"full": "available", "child": "available"}, "claims": {"data": "first"}},
    "create, incremental": {"phases": {"full": "available", "child": "available"}, "claims": {"data": "second"}},
    "restore to a new volume": {
        "phases": {"full": "available", "again": "available"},
        "claims": {"data": "second", "new": "first"},
    },
    "restore to a volume that is bound late": {
        "phases": {"full": "available", "again": "available"},
        "claims": {"data": "second", "new": "first"},
    },
    "restore to an existing volume": {
        "phases": {"full": "available", "again": "available"},
        "claims": {"data": "first"},
    },
    "two restores to one name": {"claims": {"data": "second", "new": "first"}},
    "delete": {"phases": {}, "claims": {"data": "second"}, "stored": 0},
    "delete parent and child": {"phases": {}, "claims": {"data": "second"}, "stored": 0},
    "delete, retaining the data": {"phases": {}, "claims": {"data": "first"}, "stored": 2},
    "delete during a restore": {
        "phases": {"again": "available"},
        "claims": {"data": "second", "new": "first"},
        "stored": 0,
    },
    "verify the structure": {
        "phases": {"full": "available", "child": "available", "proof": "verified"},
        "claims": {"data": "second"},
        "stored": 4,
    },
    "verify the data": {
        "phases": {"full": "available", "child": "available", "proof": "verified"},
        "claims": {"data": "second"},
        "stored": 4,
    },
    "verify damaged data": {
        "phases": {"full": "available", "child": "available", "proof": "damaged"},
        "claims": {"data": "second"},
        "stored": 4,
    },
}


def run(name: str, fault: tuple[int, BaseException, bool] | None = None) -> tuple[Simulation, int]:
    """Run a scenario to its end, with an optional fault at one write. Return the simulation and its writes."""
    prepare, start = SCENARIOS[name]
    return run_scenario(prepare, start, fault)


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario_reaches_its_expected_end(name: str) -> None:
    simulation, _ = run(name)
    end, expected = summary(simulation), END[name]
    assert end["claims"] == expected["claims"]
    assert end["children"] == simulation.pods_of_users()
    assert {phase: outcome[0] for phase, outcome in end["phases"].items()} == expected.get("phases", ANY)
    assert len(end["stored"]) == expected.get("stored", ANY)
    assert set(end["volumes"]) == {("Bound", "Delete", "")}


@pytest.mark.parametrize(("name", "how"), pairs_in_turn([*SCENARIOS], [*FAULTS]))
def test_operator_faults_do_not_change_the_end(name: str, how: str) -> None:
    reference, writes = run(name)
    done, error = FAULTS[how]
    for at in range(writes):
        simulation, _ = run(name, (at, error(), done))
        assert summary(simulation) == summary(reference), f"write {at}\n{simulation.story()}"


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_dying_movers_do_not_change_the_end(name: str, done: bool) -> None:
    prepare, start = SCENARIOS[name]

    def ended(death: int | None) -> tuple[Simulation, int]:
        with Simulation() as simulation:
            prepare(simulation)
            before = simulation.cluster.mover_writes
            if death is not None:
                simulation.cluster.mover_dies = before + death, done
            start(simulation)
            simulation.settle()
        return simulation, simulation.cluster.mover_writes - before

    reference, writes = ended(None)
    for death in range(writes):
        simulation, _ = ended(death)
        assert summary(simulation) == summary(reference), f"write {death} of a mover\n{simulation.story()}"


@pytest.mark.parametrize("name", some(SCENARIOS))
def test_dying_mover_and_operator_do_not_change_the_end(name: str) -> None:
    reference, writes = run(name)
    prepare, start = SCENARIOS[name]
    for at in range(0, writes + 4, 2):
        with Simulation() as simulation:
            prepare(simulation)
            simulation.cluster.mover_dies = simulation.cluster.mover_writes + at % 2, False
            simulation.faults.plan(at, Crash("scripted"), done=at % 4 == 0)
            start(simulation)
            simulation.settle()
        assert summary(simulation) == summary(reference), f"write {at}\n{simulation.story()}"


@pytest.mark.parametrize("done", [False, True])
def test_missed_changes_are_recorded_despite_crashes(*, done: bool) -> None:
    """The manifest contains the number, since the report of the mover disappears with its Job."""
    for at in range(run("create, incremental")[1]):
        with Simulation() as simulation:
            _full(simulation)
            simulation.cluster.found = Comparison(
                dirty_window_seconds=3600, compared=True, reread_files=0, missed_changes=2
            )
            simulation.faults.plan(at, Crash("scripted"), done=done)
            simulation.backup("child", "data", incremental=True)
            simulation.settle()
        status = simulation.get("VolumeBackup", "child")["status"]
        assert (status["missedChanges"], status["rereadFiles"]) == (2, 0), f"write {at}"
        counts = [count for reason, count in simulation.events() if reason == "ChangeMissed"]
        assert counts in ([1], [2]), f"write {at}: {counts}"
        assert "missedChanges" not in simulation.get("VolumeBackup", "full")["status"]


CANCELLED: dict[str, tuple[Part, Part, str]] = {
    "a backup": (_volume, lambda s: s.backup("cancelled", "data"), "VolumeBackup"),
    "an incremental backup": (_full, lambda s: s.backup("cancelled", "data", incremental=True), "VolumeBackup"),
    "a restore to a new volume": (_full, lambda s: s.restore("cancelled", "full", name="new"), "VolumeRestore"),
    "a verification": (_chain, lambda s: s.verify("cancelled", "Data", volumeId="data"), "BackupVerification"),
    "a restore to an existing one": (_full, lambda s: s.restore("cancelled", "full", volumeId="data"), "VolumeRestore"),
}


def cancel(name: str, steps: int, at: int | None = None) -> tuple[Simulation, bool]:
    """Create an operation, delete it after ``steps`` steps, and crash at a later write. Return whether it had ended."""
    prepare, start, kind = CANCELLED[name]
    with Simulation() as simulation:
        prepare(simulation)
        start(simulation)
        for _ in range(steps):
            simulation.step()
        has_ended = simulation.phase(kind, "cancelled") in ("available", "verified")
        if at is not None:
            simulation.faults.plan(at, Crash("scripted"), done=at % 2 == 0)
        simulation.delete(kind, "cancelled")
        simulation.settle()
    return simulation, has_ended


@some_or_all_moments
@pytest.mark.parametrize("name", CANCELLED)
def test_cancelling_after_any_step_leaves_nothing(name: str, moments: Moments) -> None:
    kind = CANCELLED[name][2]
    ended, steps = False, 0
    while not ended:
        for at in moments(steps, (0, 1, 2, 3, 4, 5, 7)):
            simulation, ended = cancel(name, steps, at)
            end = summary(simulation)
            story = f"step {steps}, write {at}: {end}\n{simulation.story()}"
            assert simulation.phase(kind, "cancelled") == "gone", story
            assert end["children"] == [], story
            assert {marks for _, _, marks in end["volumes"]} == {""}, story
            assert len(end["volumes"]) == len(end["claims"]), story
            assert end["claims"].get("new", "first") == "first", story
            assert not [key for key in end["stored"] if "full" not in key and "child" not in key], story
        steps += 1
    assert steps > 10
