"""docs/guide/security.md says of the operator's rights what the chart grants: no more, no less."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.cluster.audit import Right, granted
from tests.support.cluster.chart import CHART, NAMESPACE, Objects, render

pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[3] / "docs" / "guide" / "security.md"
TABLES = {"In all namespaces": ("ClusterRole", ""), "In the release's namespace": ("Role", NAMESPACE)}


def _documented(heading: str, namespace: str) -> Iterator[Right]:
    section = PAGE.read_text().partition(f"### {heading}\n")[2].partition("\n#")[0]
    resources: list[str] = []
    for row in re.findall(r"^\| (.+) \| `([a-z]+)` \| .+ \|$", section, re.MULTILINE):
        resources = re.findall(r"`([a-z0-9./]+)`", row[0]) or resources
        for named in resources:
            whole, slash, subresource = named.partition("/")
            resource, _, group = whole.partition(".")
            yield Right(group, f"{resource}{slash}{subresource}", row[1], namespace)


def _operators(objects: Objects, kind: str) -> Objects:
    return [item for item in objects if item["kind"] == kind and item["metadata"]["name"] == "cinderblock"]


@pytest.mark.parametrize("heading", TABLES)
def test_every_right_is_in_the_table_with_its_reason_and_nothing_else(heading: str) -> None:
    kind, namespace = TABLES[heading]
    listed = list(_documented(heading, namespace))
    assert len(listed) == len(set(listed))
    assert set(listed) == granted(_operators(render(), kind))


def test_every_mark_of_the_policies_is_documented_and_no_other() -> None:
    section = PAGE.read_text().partition("### Policies\n")[2].partition("\n### ")[0]
    table = section.partition("| On | Marks |")[2].partition("\n\n")[0]
    policies = yaml.safe_load((CHART / "admission" / "marks.yaml").read_text())["policies"]
    marks = {
        name for policy in policies for part in ("labels", "annotations", "finalizers") for name in policy.get(part, ())
    }
    assert set(re.findall(r"`(cinderblock\.io/[a-z-]+)`", table)) == marks
