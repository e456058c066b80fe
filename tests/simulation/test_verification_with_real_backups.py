"""Damage in real stored data: a real verification reports it to the operator, and the next backup heals it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cinderblock.repository.verify import findings
from tests.support.simulation.real_movers import RealMovers
from tests.support.simulation.simulation import Simulation


@pytest.fixture
def chain(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulation]:
    """Return a full backup "a" and an incremental one "b" of a volume, made by the real engine."""
    # A verification waits before it reads a missing object again. Nobody else works here meanwhile.
    monkeypatch.setattr(findings, "SETTLE_SECONDS", 0.0)
    with Simulation(cluster=RealMovers) as simulation:
        simulation.claim("data", "shop-one")
        simulation.backup("a", "data")
        simulation.settle()
        simulation.write("data", "shop-two")
        simulation.backup("b", "data", incremental=True)
        simulation.settle()
        yield simulation


def verify(simulation: Simulation, name: str, level: str, **spec: Any) -> str:
    """Verify the volume, and return the phase in which the verification ends."""
    simulation.verify(name, level, volumeId="data", **spec)
    simulation.settle()
    return str(simulation.get("BackupVerification", name)["status"]["phase"])


def results(simulation: Simulation) -> dict[str, str | None]:
    """Return what is known about each backup."""
    found = {
        item["metadata"]["name"]: item["status"].get("verification") for item in simulation.objects.all("VolumeBackup")
    }
    return {name: summary and summary.get("result") for name, summary in found.items()}


def a_pack(simulation: Simulation, backup: str) -> str:
    """Return the key of a pack that a backup has written."""
    owner = simulation.get("VolumeBackup", backup)["status"]["id"]
    return next(key for key in simulation.stored("packs/") if f"/{owner}/" in key)


def test_sound_chain_is_verified_in_parts(chain: Simulation) -> None:
    assert verify(chain, "structure", "Structure") == "verified"
    assert [verify(chain, f"part-{n}", "Data", data={"parts": 3}) for n in range(3)] == ["verified"] * 3
    read = [chain.get("BackupVerification", f"part-{n}")["status"]["part"] for n in range(3)]
    assert sorted(read) == [1, 2, 3]
    assert results(chain)["b"] == "Verified"


def test_flipped_byte_is_found_and_the_next_backup_avoids_it(chain: Simulation) -> None:
    key = a_pack(chain, "b")
    content = bytearray(chain.cluster.store.get(key))
    content[len(content) // 2] ^= 1
    chain.cluster.store.put(key, bytes(content))

    assert verify(chain, "data", "Data") == "damaged"
    assert chain.get("BackupVerification", "data")["status"]["objects"] == [key]
    assert results(chain)["b"] == "Damaged"
    assert results(chain)["a"] != "Damaged"

    chain.write("data", "shop-three")
    chain.backup("c", "data", incremental=True)
    chain.settle()
    parent = chain.get("VolumeBackup", "c")["status"]["parentId"]
    assert parent == chain.get("VolumeBackup", "a")["metadata"]["uid"]
    chain.restore("again", "c", name="new")
    chain.settle()
    assert chain.content("new") == "shop-three"


def test_missing_pack_of_the_oldest_backup_makes_the_next_one_full(chain: Simulation) -> None:
    chain.cluster.store.delete([a_pack(chain, "a")])
    assert verify(chain, "structure", "Structure") == "damaged"
    assert verify(chain, "data", "Data") == "damaged"
    assert set(results(chain).values()) == {"Damaged"}

    chain.backup("c", "data", incremental=True)
    chain.settle()
    assert chain.get("VolumeBackup", "c")["status"]["isIncremental"] is False
    assert verify(chain, "again", "Data") == "damaged"
    assert results(chain)["c"] != "Damaged"


def test_lost_manifest_is_damage_of_its_backup_alone(chain: Simulation) -> None:
    chain.cluster.store.delete([chain.get("VolumeBackup", "b")["status"]["manifestKey"]])
    assert verify(chain, "structure", "Structure") == "damaged"
    assert results(chain) == {"a": None, "b": "Damaged"}
