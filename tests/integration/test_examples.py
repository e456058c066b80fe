"""A real API server accepts the examples unchanged: every field is known, and every rule is met."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cinderblock.controller.request import OWN_KINDS
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import CRON_JOB, NAMESPACE, PVC, SECRET, Kind

pytestmark = pytest.mark.integration

FOLDER = Path(__file__).parents[2] / "examples"
STATEFUL_SET = Kind("apps", "v1", "statefulsets", "StatefulSet")
KINDS = OWN_KINDS | {kind.kind: kind for kind in (SECRET, CRON_JOB, PVC, STATEFUL_SET)}


def _objects(path: Path) -> list[dict[str, Any]]:
    """Return the objects of an example. Flux replaces the variable."""
    return list(yaml.safe_load_all(path.read_text().replace("${VERSION}", "1-4-0")))


def _is_ours(path: Path) -> bool:
    return all(item.get("kind") in KINDS for item in _objects(path))


EXAMPLES = sorted(FOLDER.glob("*.yaml")) + sorted(filter(_is_ours, FOLDER.glob("gitops/**/*.yaml")))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
async def test_api_server_takes_the_example(client: KubeClient, namespace: str, path: Path) -> None:
    for item in _objects(path):
        if item["kind"] == NAMESPACE.kind:
            assert item["metadata"]["name"] == "demo"
            continue
        kind = KINDS[item["kind"]]
        if kind.namespaced:
            assert item["metadata"].pop("namespace") == "demo"
            item["metadata"]["namespace"] = namespace
        created = await client.create(kind, item)
        assert created["metadata"]["uid"]
        if not kind.namespaced:
            # Examples 10 and 16 make the same schedule, so that a cluster never has both.
            await client.delete(kind, item["metadata"]["name"], "", uid=created["metadata"]["uid"])
