"""The number of writes per operation. Every write costs a request, watch events and storage in etcd.

docs/scale.md has the same numbers in a table. A long-running mover adds at most one progress write every 5 s.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.simulation.simulation import Simulation

TABLE = (Path(__file__).parents[2] / "docs/scale.md").read_text()


def backed_up(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.settle()


def nothing(simulation: Simulation) -> None:
    pass


OPERATIONS: dict[str, tuple[Callable[[Simulation], None], Callable[[Simulation], object], str]] = {
    "backup, until it is available": (nothing, lambda s: s.backup("one", "data"), "available"),
    "restore to a new volume, until it is available": (
        backed_up,
        lambda s: s.restore("one", "full", name="new"),
        "available",
    ),
    "restore to an existing volume, until it is available": (
        backed_up,
        lambda s: s.restore("one", "full", volumeId="data"),
        "available",
    ),
    "deletion of a backup": (backed_up, lambda s: s.delete("VolumeBackup", "full"), "gone"),
}


def counted(name: str) -> tuple[int, int, int]:
    """Return the writes until the final phase, including Events, and the writes after it, such as cleanup."""
    prepare, ask, end = OPERATIONS[name]
    with Simulation() as simulation:
        simulation.claim("data", "content")
        # A store in use is noted on the store once: with its first backup, and not with every one.
        simulation.backup("first", "data")
        simulation.settle()
        prepare(simulation)
        since = len(simulation.faults.log)
        ask(simulation)
        kind = "VolumeRestore" if simulation.objects.all("VolumeRestore") else "VolumeBackup"
        while simulation.phase(kind, "full" if end == "gone" else "one") != end:
            simulation.step()
        until = len(simulation.faults.log)
        simulation.settle()
        log = simulation.faults.log
    events = sum(call.kind.kind == "Event" for call in log[since:until])
    return until - since - events, events, len(log) - until


@pytest.mark.parametrize("name", OPERATIONS)
def test_documented_number_of_writes_is_correct(name: str) -> None:
    writes, events, after = counted(name)
    assert f"| {name} | {writes} | {events} | {after} |" in TABLE


def test_backup_takes_at_most_nine_writes() -> None:
    writes, _, _ = counted("backup, until it is available")
    assert writes <= 9
