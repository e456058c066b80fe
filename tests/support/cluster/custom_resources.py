"""Our CustomResourceDefinitions on a real API server, and examples of our objects."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import yaml

from cinderblock.api.crd.definitions import CustomResource, definition
from cinderblock.controller.request import OWN_KINDS
from cinderblock.errors import NotFound
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import Kind

DEFINITION = Kind(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)
OUR_KINDS = {kind.plural: kind for kind in OWN_KINDS.values()}
EXAMPLES = Path(__file__).parents[2] / "data" / "crds"

Case = tuple[Kind, str, dict[str, Any]]


async def install(client: KubeClient, resource: CustomResource) -> dict[str, Any]:
    """Create the definition if it is not there, wait until its objects are served, and give what the server has."""
    wanted = definition(resource)
    name = wanted["metadata"]["name"]
    if await client.get(DEFINITION, name) is None:
        await client.create(DEFINITION, wanted)
    async with asyncio.timeout(30):
        while True:
            seen = await client.get(DEFINITION, name)
            if seen and conditions(seen).get("Established") == "True" and await _answers(client, resource):
                return seen
            await asyncio.sleep(0.05)


def conditions(found: dict[str, Any]) -> dict[str, str]:
    """Return the status of each condition of an object, by type."""
    return {item["type"]: item["status"] for item in found.get("status", {}).get("conditions") or ()}


def examples(folder: str) -> list[Case]:
    """Return every example of a folder of tests/data/crds: the kind, the name of the example, and the object."""
    return [
        (OUR_KINDS[path.stem], sentence, example)
        for path in sorted((EXAMPLES / folder).glob("*.yaml"))
        for sentence, example in yaml.safe_load(path.read_text("utf-8")).items()
    ]


def named(case: Case) -> str:
    """Name of a test of an example."""
    kind, sentence, _ = case
    return f"{kind.plural}: {sentence}"


async def _answers(client: KubeClient, resource: CustomResource) -> bool:
    """Return whether the endpoint exists. It follows the condition Established a moment later."""
    try:
        await client.list(OUR_KINDS[resource.plural])
    except NotFound:
        return False
    return True
