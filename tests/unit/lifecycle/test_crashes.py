"""An operator that dies before or after any of its writes comes to the same end as one that does not."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.faults import Crash
from tests.support.simulation import Simulation

Part = Callable[[Simulation], object]


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
    simulation.restore("again", "full", name="new")
    for _ in range(6):
        simulation.step()
    simulation.delete("VolumeBackup", "full")


SCENARIOS: dict[str, tuple[Part, Part]] = {
    "create": (_volume, lambda s: s.backup("full", "data")),
    "create of a forced one": (
        lambda s: (_volume(s), s.pod("web", "data")),
        lambda s: s.backup("full", "data", force=True),
    ),
    "create that is refused": (lambda s: (_volume(s), s.pod("web", "data")), lambda s: s.backup("full", "data")),
    "two at once": (_volume, lambda s: (s.backup("full", "data"), s.backup("child", "data", incremental=True))),
    "incremental": (_full, lambda s: s.backup("child", "data", incremental=True)),
    "restore new": (_full, lambda s: s.restore("again", "full", name="new")),
    "restore new, bound late": (_full, lambda s: s.restore("again", "full", name="new", storageClassName="late")),
    "restore existing": (_full, lambda s: s.restore("again", "full", volumeId="data")),
    "two restores of one name": (
        _full,
        lambda s: (s.restore("a", "full", name="new"), s.restore("b", "full", name="new")),
    ),
    "delete": (_full, lambda s: s.delete("VolumeBackup", "full")),
    "delete parent and child": (_chain, _delete_both),
    "delete retained": (
        lambda s: (_volume(s), s.backup("full", "data", deletionPolicy="Retain"), s.settle()),
        lambda s: s.delete("VolumeBackup", "full"),
    ),
    "delete a restore that has ended": (_restored, lambda s: s.delete("VolumeRestore", "again")),
    "delete during a restore": (_full, _delete_during_restore),
}  # fmt: skip


def run(name: str, at: int | None = None, *, done: bool = False, error: BaseException | None = None) -> Simulation:
    """A scenario to its end; ``at``: number of the write that fails."""
    prepare, ask = SCENARIOS[name]
    simulation = Simulation()
    prepare(simulation)
    if at is not None:
        simulation.faults.plan(at, error or Crash("scripted"), done=done)
    simulation.began = simulation.faults.writes
    ask(simulation)
    simulation.settle()
    return simulation
