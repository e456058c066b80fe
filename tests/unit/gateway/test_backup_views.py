"""The view of a VolumeBackup agrees with the object, whatever its content and the caller's version."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic_core import to_json

from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackup
from cinderblock.gateway.resources.backups import schemas as backups_schemas
from cinderblock.gateway.resources.backups import view as backups_view
from cinderblock.gateway.resources.backups.index import list_spec
from cinderblock.gateway.rest.links import Links
from cinderblock.gateway.rest.microversions import MAXIMUM, MINIMUM, V2, Version
from cinderblock.gateway.rest.timestamps import format_timestamp

NEWER = {"os-backup-project-attr:project_id": 18, "metadata": 43, "user_id": 56}
CINDER_3_0 = frozenset({
    "id", "name", "links", "status", "size", "object_count", "availability_zone", "container", "created_at",
    "updated_at", "description", "fail_reason", "volume_id", "is_incremental", "has_dependent_backups", "snapshot_id",
    "data_timestamp",
})  # fmt: skip
"""The keys of a backup in 3.0. Tempest rejects missing and additional keys."""

uids = st.uuids().map(str)
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=20)
times = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)).map(datetime.isoformat)  # noqa: DTZ001
versions = st.one_of(st.just(V2), st.integers(MINIMUM.minor, MAXIMUM.minor).map(lambda minor: Version(3, minor)))
LINKS = Links("http://x", 3, "shop")


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    """A stored VolumeBackup: new, running, ended, imported, or with a status copied from another object."""
    uid = draw(uids)
    spec: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "name": texts,
                "description": texts,
                "container": st.just("bucket"),
                "incremental": st.booleans(),
                "snapshotId": uids,
                "availabilityZone": texts,
                "metadata": st.dictionaries(st.sampled_from(["a", "b"]), texts),
            },
        )
    )
    imported = draw(st.none() | uids)
    spec |= {"import": {"id": imported}} if imported else {"volumeId": draw(uids)}
    status: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "phase": st.sampled_from([phase.value for phase in BackupPhase]),
                "id": st.just(imported or uid) | uids,
                "importedBy": st.just(uid),
                "volumeId": uids,
                "container": st.just("other"),
                "snapshotId": uids,
                "size": st.integers(0, 99),
                "objectCount": st.integers(0, 99),
                "failReason": texts,
                "isIncremental": st.booleans(),
                "hasDependentBackups": st.booleans(),
                "createdAt": times,
                "updatedAt": times,
                "dataTimestamp": times,
                "parentId": uids,
            },
        )
    )
    metadata: dict[str, Any] = {
        "name": "b",
        "namespace": "shop",
        "uid": uid,
        "creationTimestamp": "2026-11-23T09:00:00Z",
        "annotations": draw(st.fixed_dictionaries({}, optional={"cinderblock.io/created-by": texts})),
    }
    if draw(st.booleans()):
        metadata["deletionTimestamp"] = "2026-11-23T10:00:00Z"
    return {"metadata": metadata, "spec": spec} | ({"status": status} if status else {})


@given(body=bodies(), version=versions)
def test_view_has_cinders_keys_and_matches_the_schema(body: dict[str, Any], version: Version) -> None:
    view = backups_view.detail(VolumeBackup.model_validate(body), version, LINKS)
    assert set(view) == CINDER_3_0 | {key for key, minor in NEWER.items() if version >= (3, minor)}
    response = json.loads(to_json({"backup": view}))
    Draft202012Validator(backups_schemas.BACKUP_DETAIL).validate(response)


@given(body=bodies(), version=versions)
def test_view_has_the_values_of_the_object(body: dict[str, Any], version: Version) -> None:
    spec, metadata, uid = body["spec"], body["metadata"], body["metadata"]["uid"]
    status = body.get("status", {})
    identifier = spec["import"]["id"] if "import" in spec else uid
    if status.get("importedBy" if "import" in spec else "id") != uid:
        status = {}
    view = backups_view.detail(VolumeBackup.model_validate(body), version, LINKS)
    assert view["id"] == identifier
    for key, field in (("name", "name"), ("description", "description"), ("availability_zone", "availabilityZone")):
        assert view[key] == spec.get(field)
    assert view["container"] == status.get("container", spec.get("container"))
    assert view["snapshot_id"] == status.get("snapshotId", spec.get("snapshotId"))
    assert view["is_incremental"] is status.get("isIncremental", spec.get("incremental", False))
    assert view["has_dependent_backups"] is status.get("hasDependentBackups", False)
    assert (view["size"], view["object_count"]) == (status.get("size"), status.get("objectCount", 0))
    assert view["fail_reason"] == status.get("failReason")
    for key, field, default in (
        ("created_at", "createdAt", metadata["creationTimestamp"]),
        ("updated_at", "updatedAt", None),
        ("data_timestamp", "dataTimestamp", status.get("createdAt", metadata["creationTimestamp"])),
    ):
        text = status.get(field, default)
        assert view[key] == (format_timestamp(datetime.fromisoformat(text)) if text else None)
    assert view["status"] == _expected_status(status, version, is_deleted="deletionTimestamp" in metadata)
    assert view.get("metadata", {}) == (spec.get("metadata", {}) if version >= (3, 43) else {})


def _expected_status(status: dict[str, Any], version: Version, *, is_deleted: bool) -> str:
    phase = str(status.get("phase", "creating"))
    if is_deleted:
        return phase if phase in ("deleting", "error_deleting") else "deleting"
    return "available" if phase == "error_restoring" and version.major == MAXIMUM.major else phase


@given(body=bodies(), version=versions)
def test_list_columns_are_the_values_in_the_view(body: dict[str, Any], version: Version) -> None:
    backup = VolumeBackup.model_validate(body)
    view = backups_view.detail(backup, version, LINKS)
    for name, column in list_spec(version).columns.items():
        value = column(backup)
        if name in view:
            assert view[name] == (format_timestamp(value) if isinstance(value, datetime) else value), name


@settings(max_examples=50)
@given(body=bodies(), version=versions)
def test_view_survives_serialization_of_the_object(body: dict[str, Any], version: Version) -> None:
    backup = VolumeBackup.model_validate(body)
    again = VolumeBackup.model_validate_json(backup.model_dump_json(by_alias=True, exclude_none=True))
    assert backups_view.detail(again, version, LINKS) == backups_view.detail(backup, version, LINKS)
