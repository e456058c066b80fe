"""Files of the chart agree with each other and with the code."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "cinderblock"

DEFINITIONS = sorted(path.name for path in (ROOT / "crds").glob("*.yaml"))


def test_there_are_definitions_of_all_our_kinds() -> None:
    kinds = [
        "backupgrants",
        "backupschedules",
        "backupstores",
        "backupverifications",
        "clusterbackupschedules",
        "clusterbackupstores",
        "volumebackups",
    ]
    kinds += ["volumerestores", "restoresources"]
    assert sorted(f"{kind}.yaml" for kind in kinds) == DEFINITIONS


@pytest.mark.parametrize("name", DEFINITIONS)
def test_chart_has_the_same_definitions_byte_for_byte(name: str) -> None:
    assert (CHART / "crds-files" / name).read_bytes() == (ROOT / "crds" / name).read_bytes()


def test_chart_has_no_definitions_of_its_own() -> None:
    assert sorted(path.name for path in (CHART / "crds-files").iterdir()) == DEFINITIONS


def test_chart_image_and_package_have_one_version() -> None:
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    image = re.search(r"^ARG VERSION=(.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert image is not None
    assert {package, chart["version"], chart["appVersion"], image[1]} == {package}


def test_every_value_has_a_schema_and_every_schema_a_value() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    set_by_helm = {"global"}
    assert set(_closed_paths(schema)) - set_by_helm == set(_value_paths(values, schema))


def test_schema_has_each_key_once() -> None:
    repeated: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        repeated.extend(key for key in keys if keys.count(key) > 1)
        return dict(pairs)

    json.loads((CHART / "values.schema.json").read_text(), object_pairs_hook=note)
    assert repeated == []


def test_every_value_is_documented_with_its_default() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = dict(_leaves(values, schema, schema["$defs"]))
    page = (ROOT / "docs" / "reference" / "chart.md").read_text()
    rows = re.findall(r"^\| `([A-Za-z.]+)` \| `(.+?)` \| .{10,} \|$", page, re.MULTILINE)
    assert sorted(path for path, _ in rows) == sorted(defaults)
    for path, default in rows:
        assert yaml.safe_load(default) == defaults[path], path


def _leaves(
    values: dict[str, Any], schema: dict[str, Any], shared: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yield the values that are set as a whole, with their defaults. Those of Kubernetes' own types are among them."""
    for name, value in values.items():
        part = schema["properties"][name]
        reference = part.get("$ref", "").rpartition("/")[2]
        resolved = shared[reference] if reference else part
        if isinstance(value, dict) and "properties" in resolved and reference != "resources":
            yield from _leaves(value, resolved, shared, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def test_schema_leaves_no_object_open_except_those_of_kubernetes() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    open_objects = {path for path, part in _objects(schema) if "additionalProperties" not in part}
    assert open_objects == {"global", "affinity"}


def _closed_paths(schema: dict[str, Any], prefix: str = "") -> list[str]:
    """Paths of all properties, those of Kubernetes' own types left out."""
    paths = []
    for name, part in schema.get("properties", {}).items():
        paths.append(prefix + name)
        paths += _closed_paths(part, f"{prefix}{name}.")
    return paths


def _value_paths(values: dict[str, Any], schema: dict[str, Any], prefix: str = "") -> list[str]:
    paths = []
    for name, value in values.items():
        paths.append(prefix + name)
        part = schema.get("properties", {}).get(name, {})
        if isinstance(value, dict) and "properties" in part:
            paths += _value_paths(value, part, f"{prefix}{name}.")
    return paths


def _objects(schema: dict[str, Any], prefix: str = "") -> list[tuple[str, dict[str, Any]]]:
    found = []
    for name, part in schema.get("properties", {}).items():
        if part.get("type") == "object":
            found.append((prefix + name, part))
        found += _objects(part, f"{prefix}{name}.")
    return found
