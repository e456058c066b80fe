"""Injected faults affect the calls that they name, as often as they say."""

import os
from pathlib import Path

import pytest

from tests.cluster.csi.faults import NO_FAULT, Fault, Faults, plant
from tests.cluster.csi.refusals import RefusalError

pytestmark = pytest.mark.integration


def test_fault_is_counted_down_and_then_gone(tmp_path: Path) -> None:
    path = plant(str(tmp_path), "CreateSnapshot", Fault(code="INTERNAL", times=2))
    faults = Faults(str(tmp_path))
    taken = [faults.take("CreateSnapshot", "") for _ in range(3)]
    assert [fault.code for fault in taken] == ["INTERNAL", "INTERNAL", ""]
    assert not os.path.exists(path)


def test_fault_without_a_count_stays_until_its_file_is_removed(tmp_path: Path) -> None:
    path = plant(str(tmp_path), "DeleteVolume", Fault(code="UNAVAILABLE"))
    faults = Faults(str(tmp_path))
    assert faults.take("DeleteVolume", "").code == "UNAVAILABLE"
    assert faults.take("DeleteVolume", "").code == "UNAVAILABLE"
    os.unlink(path)
    assert faults.take("DeleteVolume", "") == NO_FAULT


def test_fault_hits_only_its_call_and_the_requests_that_match(tmp_path: Path) -> None:
    plant(str(tmp_path), "CreateVolume", Fault(code="INTERNAL", match="pvc-1"), label="first")
    plant(str(tmp_path), "CreateVolume", Fault(code="UNAVAILABLE", match="pvc-2"), label="second")
    faults = Faults(str(tmp_path))
    assert faults.take("CreateVolume", 'name: "pvc-2"').code == "UNAVAILABLE"
    assert faults.take("CreateVolume", 'name: "pvc-3"') == NO_FAULT
    assert faults.take("CreateVolumeGroupSnapshot", 'name: "pvc-1"') == NO_FAULT


def test_late_fault_refuses_after_the_work(tmp_path: Path) -> None:
    plant(str(tmp_path), "CreateVolume", Fault(code="INTERNAL", late=True))
    work = []
    with pytest.raises(RefusalError), Faults(str(tmp_path)).around("CreateVolume", ""):
        work.append("done")
    assert work == ["done"]


def test_malformed_fault_file_fails_the_call(tmp_path: Path) -> None:
    plant(str(tmp_path), "CreateVolume", Fault())
    (tmp_path / "faults" / "CreateVolume").write_text('{"cod": "INTERNAL"}')
    with pytest.raises(RefusalError, match="cannot be read"):
        Faults(str(tmp_path)).take("CreateVolume", "")
