"""The worker processes start quickly: each backup of a tree waits for one, and each restore for several."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("name", ["walk_worker", "create_worker"])
def test_worker_loads_no_models(name: str) -> None:
    code = f"import sys, cinderblock.volume.workers.{name}; print(*sys.modules)"
    printed = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout
    assert f"cinderblock.volume.workers.{name}" in printed.split()
    assert "pydantic" not in printed.split()
