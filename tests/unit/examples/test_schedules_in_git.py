"""Examples of schedules are as short as they say, and the tools of GitOps find what they apply."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples"


def test_namespace_is_protected_in_20_lines() -> None:
    assert len(_lines("13-namespace-in-20-lines.yaml")) <= 20


def test_cluster_is_protected_in_30_lines() -> None:
    assert len(_lines("16-cluster-in-30-lines.yaml")) <= 30


def test_shared_store_and_schedule_select_the_same_namespaces() -> None:
    store, schedule = yaml.safe_load_all((EXAMPLES / "16-cluster-in-30-lines.yaml").read_text())
    assert store["spec"]["allowedNamespaces"]["selector"] == schedule["spec"]["namespaceSelector"]


def _lines(example: str) -> list[str]:
    """Return the lines of an example without comments."""
    return [line for line in (EXAMPLES / example).read_text().splitlines() if not line.startswith(("#", "---"))]


def test_tools_apply_the_folder_with_the_schedule() -> None:
    application = _only("argocd-schedule.yaml")["spec"]
    kustomization = _only("flux-schedule.yaml")["spec"]
    assert application["source"]["path"] == kustomization["path"].removeprefix("./") == "examples/gitops/schedule"
    folder = ROOT / application["source"]["path"]
    resources = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    assert {path.name for path in folder.iterdir()} == {"kustomization.yaml", *resources}
    assert application["syncPolicy"]["automated"]["prune"] is kustomization["prune"] is True
    [schedule] = yaml.safe_load_all((folder / resources[0]).read_text())
    assert schedule["metadata"]["namespace"] == application["destination"]["namespace"]


def _only(name: str) -> dict[str, Any]:
    [found] = yaml.safe_load_all((EXAMPLES / "gitops" / name).read_text())
    return dict(found)
