"""Volumes with the access mode ReadOnlyMany: their use does not matter, and temporary claims can be written to."""

from __future__ import annotations

import pytest

from tests.support.simulation.simulation import Simulation

ROX = ["ReadOnlyMany"]


def read_only(simulation: Simulation) -> None:
    """Create a volume that nobody may write to, and a pod that uses it."""
    claim = simulation.claim("data", "first")
    simulation.objects.update(claim, spec=claim["spec"] | {"accessModes": ROX})
    simulation.pod("web", "data")


@pytest.mark.parametrize("snapshots", [True, False], ids=["with snapshots", "without"])
def test_volume_in_use_is_backed_up_without_force(*, snapshots: bool) -> None:
    with Simulation(snapshots=snapshots) as simulation:
        read_only(simulation)
        simulation.attach("data", "node-1")
        simulation.backup("full", "data")
        simulation.until("VolumeBackup", "full", "MoverRunning")
        claims = {item["metadata"]["name"]: item for item in simulation.objects.all("PersistentVolumeClaim")}
        temporary = [item["spec"]["accessModes"] for name, item in claims.items() if name != "data"]
        assert temporary == ([["ReadWriteOnce"]] if snapshots else [])
        simulation.settle()
        assert (simulation.phase("VolumeBackup", "full"), simulation.kept("full")) == ("available", "first")


@pytest.mark.parametrize("modes", [None, ["ReadWriteMany"]], ids=["as before", "requested"])
def test_restored_volume_has_the_modes_again(modes: list[str] | None) -> None:
    with Simulation() as simulation:
        read_only(simulation)
        simulation.backup("full", "data")
        simulation.settle()
        simulation.restore("again", "full", name="new", **({"accessModes": modes} if modes else {}))
        simulation.settle()
        assert simulation.content("new") == "first"
        claim = simulation.get("PersistentVolumeClaim", "new")
        volume = simulation.cluster.volume_of(claim)
        assert volume is not None
        assert claim["spec"]["accessModes"] == (modes or ROX)
        assert set(claim["spec"]["accessModes"]) <= set(volume["spec"]["accessModes"])


def test_writable_volume_in_use_still_needs_force(simulation: Simulation) -> None:
    simulation.pod("web", "data")
    simulation.backup("full", "data")
    simulation.settle()
    assert simulation.reason("VolumeBackup", "full") == "VolumeInUse"
