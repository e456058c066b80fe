"""Our CustomResourceDefinitions as a whole: what every one of them must have, and that the files say the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import Field

from cinderblock.api.crd.definitions import (
    RESOURCES,
    VOLUME_BACKUP,
    VOLUME_RESTORE,
    CustomResource,
    _all_fixed,
    definition,
)
from cinderblock.api.meta import Model
from cinderblock.api.v1alpha1.backup import BackupPhase, DeletionPolicy
from cinderblock.api.v1alpha1.restore import AccessMode, RestorePhase
from crds import generate

ROOT = Path(__file__).parents[3]
EVERY = pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.plural)


def version(resource: CustomResource) -> dict[str, Any]:
    (only,) = definition(resource)["spec"]["versions"]
    return dict(only)


def schema(resource: CustomResource) -> dict[str, Any]:
    return dict(version(resource)["schema"]["openAPIV3Schema"])


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema within a schema, with its path."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(node.get(key), dict):
            yield from nodes(node[key], path + mark)


def at(resource: CustomResource, path: str) -> dict[str, Any]:
    """The schema of the field at a simple JSON path."""
    return dict(nodes(schema(resource)))[path]


@pytest.mark.parametrize("folder", ["crds", "charts/cinderblock/crds-files"])
@EVERY
def test_the_file_is_what_the_models_say_byte_for_byte(resource: CustomResource, folder: str) -> None:
    path = ROOT / folder / f"{resource.plural}.yaml"
    assert path.read_bytes() == generate.content(resource).encode()


@EVERY
def test_a_file_reads_back_as_the_definition(resource: CustomResource) -> None:
    assert yaml.safe_load(generate.content(resource)) == definition(resource)


def test_no_other_definition_lies_about() -> None:
    expected = {f"{resource.plural}.yaml" for resource in RESOURCES}
    for folder in generate.FOLDERS:
        assert {path.name for path in folder.glob("*.yaml")} == expected


def test_a_check_names_the_file_that_is_out_of_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate, "FOLDERS", (tmp_path / "crds",))
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    (tmp_path / "crds" / "volumebackups.yaml").write_text("stale")
    assert generate.main(["--check"]) == 1
    assert capsys.readouterr().err == "crds/volumebackups.yaml is not up to date: run python crds/generate.py\n"


@pytest.mark.parametrize(
    ("resource", "path", "words"),
    [
        (VOLUME_BACKUP, ".status.phase", BackupPhase),
        (VOLUME_BACKUP, ".spec.deletionPolicy", DeletionPolicy),
        (VOLUME_RESTORE, ".status.phase", RestorePhase),
        (VOLUME_RESTORE, ".spec.accessModes[]", AccessMode),
    ],
)
def test_enums_hold_the_words_of_the_models(resource: CustomResource, path: str, words: type[Any]) -> None:
    assert at(resource, path)["enum"] == [str(word) for word in words]


@EVERY
def test_every_field_is_described(resource: CustomResource) -> None:
    fields = {path: node for path, node in nodes(schema(resource)) if not path.endswith(("[]", "{}"))}
    del fields[".metadata"]  # the API server allows no description there
    assert [path for path, node in fields.items() if not node.get("description", "").endswith(".")] == []


@EVERY
def test_every_string_list_and_map_is_bounded(resource: CustomResource) -> None:
    unbounded = []
    for path, node in nodes(schema(resource)):
        kind = node.get("type")
        if kind == "string" and not ({"maxLength", "enum"} & node.keys() or node.get("format") == "date-time"):
            unbounded.append(path)
        if kind == "array" and "maxItems" not in node:
            unbounded.append(path)
        if kind == "object" and "additionalProperties" in node and "maxProperties" not in node:
            unbounded.append(path)
    assert unbounded == [".apiVersion", ".kind"]


@EVERY
def test_every_schema_is_structural(resource: CustomResource) -> None:
    refused = {"$ref", "anyOf", "oneOf", "allOf", "not", "const", "title", "nullable", "uniqueItems", "propertyNames"}
    for path, node in nodes(schema(resource)):
        assert not refused & node.keys(), path
        assert "type" in node, path
        if node["type"] == "array":
            assert node["x-kubernetes-list-type"] in {"atomic", "set", "map"}, path


@EVERY
def test_conditions_are_keyed_by_type(resource: CustomResource) -> None:
    conditions = at(resource, ".status.conditions")
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert set(conditions["items"]["required"]) >= {"type", "status", "reason", "lastTransitionTime"}


@EVERY
def test_the_server_makes_nothing_up_in_a_status(resource: CustomResource) -> None:
    status = schema(resource)["properties"]["status"]
    assert [path for path, node in nodes({"properties": status["properties"]}) if "default" in node] == []


@EVERY
def test_a_new_object_is_not_finished_for_kstatus(resource: CustomResource) -> None:
    """kstatus takes an object without conditions for finished, unless observedGeneration is behind."""
    assert schema(resource)["properties"]["status"]["default"] == {"observedGeneration": -1}


@EVERY
def test_the_status_is_a_subresource_and_the_spec_is_required(resource: CustomResource) -> None:
    assert version(resource)["subresources"] == {"status": {}}
    assert schema(resource)["required"] == ["spec"]


@EVERY
def test_selectable_fields_are_plain_fields_of_the_schema_and_at_most_eight(resource: CustomResource) -> None:
    assert len(resource.selectable) <= 8
    for path in resource.selectable:
        assert at(resource, path)["type"] in {"string", "boolean", "integer"}


@EVERY
def test_columns_show_fields_of_the_schema_in_their_own_type(resource: CustomResource) -> None:
    for column in resource.columns:
        if column.path.startswith(".metadata") or "[?" in column.path:
            continue
        node = at(resource, column.path)
        expected = "date" if node.get("format") == "date-time" else node["type"]
        assert column.type == expected, column.title


def test_backups_are_not_in_the_category_that_delete_all_takes() -> None:
    for resource in RESOURCES:
        assert definition(resource)["spec"]["names"]["categories"] == ["cinderblock"]


@pytest.mark.parametrize(
    ("resource", "mutable"),
    [(VOLUME_BACKUP, {"name", "description", "metadata", "deletionPolicy"}), (VOLUME_RESTORE, set())],
    ids=["volumebackups", "volumerestores"],
)
def test_every_field_of_the_spec_is_fixed_but_those_that_may_change(
    resource: CustomResource, mutable: set[str]
) -> None:
    fixed = {rule["fieldPath"].removeprefix(".") for rule in resource.rules if "oldSelf" in rule["rule"]}
    assert fixed == set(schema(resource)["properties"]["spec"]["properties"]) - mutable


def test_a_field_that_is_called_like_a_word_of_cel_can_be_fixed_too() -> None:
    class Spec(Model):
        import_: str = Field(alias="import")
        plain: str

    for_import, for_plain = _all_fixed(Spec, frozenset(), "no")
    assert "self.__import__ == oldSelf.__import__" in for_import["rule"]
    assert for_import["fieldPath"] == ".import"
    assert "self.plain == oldSelf.plain" in for_plain["rule"]


@EVERY
def test_every_rule_names_a_field_and_says_why(resource: CustomResource) -> None:
    for rule in resource.rules:
        assert rule["fieldPath"].removeprefix(".") in schema(resource)["properties"]["spec"]["properties"]
        assert re.search(r"[a-z]", rule["message"])
