"""How Argo CD judges our objects by the example: it runs the script in Lua, and so do we."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from lupa.lua51 import LuaRuntime

from cinderblock.api.crd.definitions import RESOURCES

EXAMPLE = Path(__file__).parents[3] / "examples" / "gitops" / "argocd-health.yaml"
SCRIPTS: dict[str, str] = yaml.safe_load(EXAMPLE.read_text())["data"]


def condition(kind: str, status: str, generation: int = 1) -> dict[str, Any]:
    return {"type": kind, "status": status, "message": f"{kind} is {status}", "observedGeneration": generation}


def health(status: dict[str, Any] | None) -> tuple[str, str]:
    lua = LuaRuntime(unpack_returned_tuples=True)
    judge = lua.eval(f"function(obj) {SCRIPTS['resource.customizations.health.cinderblock.io_VolumeBackup']} end")
    found = judge(lua.table_from({"metadata": {"generation": 1}, "status": status}, recursive=True))
    return found["status"], found["message"]


def test_each_of_our_kinds_has_a_script() -> None:
    kinds = {key.rpartition("cinderblock.io_")[2] for key in SCRIPTS}
    assert kinds == {resource.kind for resource in RESOURCES}


@pytest.mark.parametrize("status", [None, {}, {"observedGeneration": -1}, {"conditions": []}])
def test_object_without_a_status_is_progressing(status: dict[str, Any] | None) -> None:
    assert health(status) == ("Progressing", "Waiting for the operator")


def test_running_operation_is_progressing() -> None:
    conditions = [condition("Ready", "False"), condition("Reconciling", "True")]
    assert health({"conditions": conditions}) == ("Progressing", "Ready is False")


def test_ready_object_is_healthy() -> None:
    assert health({"conditions": [condition("Ready", "True")]}) == ("Healthy", "Ready is True")


def test_ready_object_that_changed_is_progressing() -> None:
    assert health({"conditions": [condition("Ready", "True", generation=0)]})[0] == "Progressing"


def test_failed_object_is_degraded() -> None:
    conditions = [condition("Ready", "False"), condition("Stalled", "True")]
    assert health({"conditions": conditions}) == ("Degraded", "Stalled is True")
