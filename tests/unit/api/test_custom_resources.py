"""Our CustomResourceDefinitions: properties of all of them, and that the files contain them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import Field

from cinderblock import __version__
from cinderblock.api.crd.definitions import (
    BACKUP_STORE,
    BACKUP_VERIFICATION,
    RESOURCES,
    VOLUME_BACKUP,
    VOLUME_RESTORE,
    CustomResource,
    definition,
)
from cinderblock.api.crd.rules import all_fixed
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
    """Return every schema within a schema, with its path."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(node.get(key), dict):
            yield from nodes(node[key], path + mark)


def at(resource: CustomResource, path: str) -> dict[str, Any]:
    """Return the schema of the field at a simple JSON path."""
    return dict(nodes(schema(resource)))[path]


CORE_FIELDS = ("tolerations[]", "resources", "affinity", "securityContext", "podSecurityContext")
"""Fields of spec.mover whose schemas are Kubernetes' own."""
CORE_PATHS = (
    *(f".spec.mover.{field}" for field in CORE_FIELDS),
    *(".spec.volumes.selector", ".spec.namespaceSelector", ".spec.allowedNamespaces.selector"),
    ".spec.backups.selector",
)


FUTURE_TIMES = (".status.expiresAt", ".status.nextScheduleTime")


def own_nodes(resource: CustomResource) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return every schema that is not Kubernetes' own, with its path."""
    return ((path, node) for path, node in nodes(schema(resource)) if not path.startswith(CORE_PATHS))


@pytest.mark.parametrize("folder", ["crds", "charts/cinderblock/crds-files"])
@EVERY
def test_file_equals_what_the_models_generate(resource: CustomResource, folder: str) -> None:
    path = ROOT / folder / f"{resource.plural}.yaml"
    assert path.read_bytes() == generate.content(resource).encode()


@EVERY
def test_file_parses_as_the_definition(resource: CustomResource) -> None:
    assert yaml.safe_load(generate.content(resource)) == definition(resource)


@EVERY
def test_file_has_no_yaml_anchors(resource: CustomResource) -> None:
    events = yaml.parse(generate.content(resource), Loader=yaml.SafeLoader)
    assert [event for event in events if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None)] == []


@EVERY
def test_definition_fits_into_the_annotation_of_kubectl_apply(resource: CustomResource) -> None:
    """Client-side apply stores the whole object in an annotation, and all annotations together have 256 KiB."""
    assert len(json.dumps(definition(resource), separators=(",", ":"))) < 128 << 10


@EVERY
def test_definition_has_labels_with_the_release(resource: CustomResource) -> None:
    assert definition(resource)["metadata"]["labels"] == {
        "app.kubernetes.io/name": "cinderblock",
        "app.kubernetes.io/part-of": "cinderblock",
        "app.kubernetes.io/version": __version__,
    }


def test_restores_have_a_short_name_of_their_own() -> None:
    """csi-addons' VolumeReplication has the short name vr as well."""
    assert definition(VOLUME_RESTORE)["spec"]["names"]["shortNames"] == ["vr", "vrs"]


@pytest.mark.parametrize(
    "module",
    ["cinderblock.cli.main", "cinderblock.mover.main", "cinderblock.controller.manager", "cinderblock.gateway.main"],
)
def test_no_program_loads_the_models_of_kubernetes(module: str) -> None:
    """Loading them takes 0.8 s of CPU time and 24 MiB. kopf itself loads a few models of metadata."""
    program = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert module in loaded
    assert [name for name in loaded if name.startswith("cinderblock.api.crd")] == []
    assert not {name.rpartition(".")[2] for name in loaded if name.startswith("kubernetes.")} & {
        "v1_toleration",
        "v1_resource_requirements",
        "v1_affinity",
        "v1_security_context",
        "v1_pod_security_context",
    }


def test_folders_contain_no_other_definition() -> None:
    expected = {f"{resource.plural}.yaml" for resource in RESOURCES}
    for folder in generate.FOLDERS:
        assert {path.name for path in folder.glob("*.yaml")} == expected


def test_check_names_the_file_that_is_out_of_date(
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
def test_enums_contain_the_words_of_the_models(resource: CustomResource, path: str, words: type[Any]) -> None:
    assert at(resource, path)["enum"] == [str(word) for word in words]


@EVERY
def test_every_field_is_described(resource: CustomResource) -> None:
    fields = {path: node for path, node in nodes(schema(resource)) if not path.endswith(("[]", "{}"))}
    del fields[".metadata"]  # the API server allows no description there
    finished = re.compile(r"\.$|://\S+$")
    assert [path for path, node in fields.items() if not finished.search(node.get("description", ""))] == []


@EVERY
def test_descriptions_have_short_sentences(resource: CustomResource) -> None:
    described = {path: node["description"] for path, node in own_nodes(resource) if "description" in node}
    sentences = [(path, s) for path, text in described.items() for s in re.split(r"(?<=[.:;]) ", text)]
    assert [(path, sentence) for path, sentence in sentences if len(sentence.split()) > 35] == []
    assert [path for path, text in described.items() if not text[0].isupper()] == []


ONE_OF_TWO = (".spec.volumeId", ".spec.import")
"""Optional fields of a VolumeBackup of which exactly one is required."""


@EVERY
def test_descriptions_of_optional_fields_name_the_default(resource: CustomResource) -> None:
    silent = []
    for path, node in own_nodes(resource):
        required = node.get("required", [])
        for name, field in node.get("properties", {}).items():
            if path.startswith(".spec") and name not in required and "properties" not in field:
                says = "default" in field["description"].lower()
                silent += [] if says or f"{path}.{name}" in ONE_OF_TWO else [f"{path}.{name}"]
    assert silent == []


@EVERY
def test_every_string_list_and_map_of_ours_is_bounded(resource: CustomResource) -> None:
    unbounded = []
    for path, node in own_nodes(resource):
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
        assert "type" in node or node["x-kubernetes-int-or-string"], path
        if node.get("type") == "array":
            assert node["x-kubernetes-list-type"] in {"atomic", "set", "map"}, path


@EVERY
def test_conditions_are_keyed_by_type(resource: CustomResource) -> None:
    conditions = at(resource, ".status.conditions")
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert set(conditions["items"]["required"]) >= {"type", "status", "reason", "lastTransitionTime"}


@EVERY
def test_status_has_no_defaults(resource: CustomResource) -> None:
    status = schema(resource)["properties"]["status"]
    assert [path for path, node in nodes({"properties": status["properties"]}) if "default" in node] == []


@EVERY
def test_new_object_is_unfinished_for_kstatus(resource: CustomResource) -> None:
    """kstatus considers an object without conditions finished, unless observedGeneration is behind."""
    assert schema(resource)["properties"]["status"]["default"] == {"observedGeneration": -1}


@EVERY
def test_status_is_a_subresource_and_spec_is_required(resource: CustomResource) -> None:
    assert version(resource)["subresources"] == {"status": {}}
    assert schema(resource)["required"] == ["spec"]


@EVERY
def test_selectable_fields_are_scalars_and_at_most_eight(resource: CustomResource) -> None:
    assert len(resource.selectable) <= 8
    for path in resource.selectable:
        assert at(resource, path)["type"] in {"string", "boolean", "integer"}


@EVERY
def test_columns_have_the_types_of_their_fields(resource: CustomResource) -> None:
    for column in resource.columns:
        if column.path.startswith(".metadata") or "[?" in column.path:
            continue
        node = at(resource, column.path)
        # kubectl shows a column of type date as an age, which a time to come does not have.
        is_past = column.path not in FUTURE_TIMES
        expected = "date" if node.get("format") == "date-time" and is_past else node["type"]
        assert column.type == expected, column.title


def test_columns_show_ready_and_reason_of_every_kind() -> None:
    for resource in RESOURCES:
        columns = [
            column["name"] for column in version(resource)["additionalPrinterColumns"] if "priority" not in column
        ]
        assert "Ready" in columns
        assert "Reason" in columns
        assert ("Duration" in columns) is (resource in (VOLUME_BACKUP, VOLUME_RESTORE, BACKUP_VERIFICATION))


@pytest.mark.parametrize("field", CORE_FIELDS)
def test_core_fields_have_schemas_that_keep_unknown_fields(field: str) -> None:
    """An upgrade must not prune what stored objects contain, and a newer Kubernetes may know more fields."""
    core = f".spec.mover.{field}"
    objects = {
        path: node
        for path, node in nodes(schema(BACKUP_STORE))
        if path.startswith(core) and node.get("type") == "object" and "additionalProperties" not in node
    }
    assert core in objects
    for path, node in objects.items():
        assert node["properties"], path
        assert node["x-kubernetes-preserve-unknown-fields"] is True, path


def test_delete_all_does_not_delete_backups() -> None:
    """Deletion of all objects uses the category all."""
    for resource in RESOURCES:
        assert definition(resource)["spec"]["names"]["categories"] == ["cinderblock"]


@pytest.mark.parametrize(
    ("resource", "mutable"),
    [(VOLUME_BACKUP, {"name", "description", "metadata", "hold", "deletionPolicy"}), (VOLUME_RESTORE, set())],
    ids=["volumebackups", "volumerestores"],
)
def test_every_field_of_the_spec_is_fixed_unless_mutable(resource: CustomResource, mutable: set[str]) -> None:
    fixed = {rule["fieldPath"].removeprefix(".") for rule in resource.rules if "oldSelf" in rule["rule"]}
    assert fixed == set(schema(resource)["properties"]["spec"]["properties"]) - mutable


def test_field_named_like_a_keyword_of_cel_can_be_fixed() -> None:
    class Spec(Model):
        import_: str = Field(alias="import")
        plain: str

    for_import, for_plain = all_fixed(Spec, frozenset(), "no")
    assert "self.__import__ == oldSelf.__import__" in for_import["rule"]
    assert for_import["fieldPath"] == ".import"
    assert "self.plain == oldSelf.plain" in for_plain["rule"]


@EVERY
def test_every_rule_names_a_field_and_has_a_message(resource: CustomResource) -> None:
    for rule in resource.rules:
        assert rule["fieldPath"].removeprefix(".") in schema(resource)["properties"]["spec"]["properties"]
        assert re.search(r"[a-z]", rule["message"])
