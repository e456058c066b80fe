"""Intended differences between the gateway and Cinder, with reasons. docs/guide/openstack.md shows them to users."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tests.openstack.answers import Answer

Change = Callable[[Answer], Answer]


def _same(answer: Answer) -> Answer:
    return answer


@dataclass(frozen=True)
class Difference:
    """One intended difference.

    Attributes:
        name: the difference.
        reason: why it is intended.
        request: regular expression that matches part of the titles of affected requests.
        applies: selects the affected answers of Cinder to those requests.
        theirs: converts Cinder's answer to the expected one.
        ours: removes unpredictable parts from the gateway's answer.
    """

    name: str
    reason: str
    request: str = ""
    applies: Callable[[Answer], bool] = bool
    theirs: Change = _same
    ours: Change = _same

    def is_in(self, title: str, theirs: Answer) -> bool:
        """Return whether the difference applies to an answer of Cinder."""
        return re.search(self.request, title) is not None and self.applies(theirs)


def pair(title: str, theirs: Answer, ours: Answer) -> tuple[Answer, Answer]:
    """Return Cinder's answer and the gateway's without intended differences."""
    for difference in (found for found in ALL if found.is_in(title, theirs)):
        theirs, ours = difference.theirs(theirs), difference.ours(ours)
    return theirs, ours


def _fault(code: int, name: str, message: str | None = None) -> Change:
    """Return a change to another fault. Without a message, the message is not compared."""

    def change(answer: Answer) -> Answer:
        inside = {"code": code} | ({} if message is None else {"message": message})
        return replace(answer, status=code, body={name: inside})

    return change


def _without_message(answer: Answer) -> Answer:
    faults = answer.body if isinstance(answer.body, dict) else {}
    silent = {
        name: {key: value for key, value in fault.items() if key != "message"}
        for name, fault in faults.items()
        if isinstance(fault, dict)
    }
    return replace(answer, body=silent)


def _without(*keys: str) -> Change:
    """Return a change that removes fields anywhere in the body."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: strip(inside) for key, inside in value.items() if key not in keys}
        return [strip(inside) for inside in value] if isinstance(value, list) else value

    return lambda answer: replace(answer, body=strip(answer.body))


def _without_headers(*names: str) -> Change:
    return lambda answer: replace(
        answer, headers={name: value for name, value in answer.headers.items() if name not in names}
    )


def _policy_alone(answer: Answer) -> Answer:
    """Reduce the message of a 403 to the sentence that Cinder has too."""
    text = re.sub(r"(:reset_status)? to be performed\..*", " to be performed.", answer.body["forbidden"]["message"])
    return replace(answer, body={"forbidden": {"code": 403, "message": text}})


def _nothing(answer: Answer) -> Answer:
    return Answer(answer.status, {}, True, None)


def _has(*keys: str) -> Callable[[Answer], bool]:
    """Return a predicate: whether one of the fields is in the body."""
    return lambda answer: any(f"'{key}'" in repr(answer.body) for key in keys)


def _status(*codes: int) -> Callable[[Answer], bool]:
    return lambda answer: answer.status in codes


_MOST = (
    "maxTotalVolumes",
    "maxTotalSnapshots",
    "maxTotalVolumeGigabytes",
    "maxTotalBackups",
    "maxTotalBackupGigabytes",
)

ALL: tuple[Difference, ...] = (
    Difference(
        "500 is 400",
        "An empty body, or null where an object belongs, is the caller's mistake, not the server's.",
        applies=_status(500),
        theirs=_fault(400, "badRequest"),
        ours=_without_message,
    ),
    Difference(
        "403 says more",
        "Cinder's sentence is followed by what the API server rejects, so that you can grant the missing right. A"
        " policy that Cinder splits by action has one name.",
        applies=_status(403),
        theirs=_policy_alone,
        ours=lambda answer: _policy_alone(answer) if answer.status == 403 else answer,
    ),
    Difference(
        "No special rights for records and forced deletion",
        "Cinder reserves them for administrators. Here the rights to read, create or delete VolumeBackups are"
        " enough, because the records hold nothing that these rights do not show. Only writing a status needs a"
        " special right.",
        request=r"^(GET backups/<monday>/export_record|POST backups/import_record .*|.*os-force_delete.*)$",
        applies=_status(403),
        theirs=_nothing,
        ours=lambda answer: Answer(403, {}, True, None),
    ),
    Difference(
        "Project and user of a backup are visible",
        "Cinder shows them to administrators only. Here, anyone who may read a VolumeBackup knows its namespace. A"
        " backup made with kubectl has no user, because Kubernetes does not record who created an object.",
        request=r"^GET backups/",
        applies=lambda answer: answer.status == 200 and _has("metadata", "os-backup-project-attr:project_id")(answer),
        theirs=_without("os-backup-project-attr:project_id", "user_id"),
        ours=_without("os-backup-project-attr:project_id", "user_id"),
    ),
    Difference(
        "Projects of microversion 3.18",
        "The same difference, in answers that contain nothing else of a newer version.",
        request=r"^GET backups/.* 3\.18$",
        theirs=_without("os-backup-project-attr:project_id"),
        ours=_without("os-backup-project-attr:project_id"),
    ),
    Difference(
        "Not available for PersistentVolumeClaims",
        "The time of the last change, and the user if it was made with kubectl. Types are StorageClasses, with"
        " names different from Cinder's. A volume that a pod uses is attached to it.",
        request=r"volumes",
        applies=lambda answer: answer.status in (200, 202) and _has("volume", "volumes")(answer),
        theirs=_without("updated_at", "user_id", "volume_type", "volume_type_id", "attachments"),
        ours=_without("updated_at", "user_id", "volume_type", "volume_type_id", "attachments"),
    ),
    Difference(
        "No hosts and migrations",
        "Cinder shows administrators the host of a volume and its migration. Here neither exists, so the fields"
        " are absent.",
        request=r"^GET volumes/<database> .* as admin$",
        theirs=_without(
            "os-vol-host-attr:host",
            "os-vol-mig-status-attr:migstat",
            "os-vol-mig-status-attr:name_id",
            "migration_status",
            "provider_id",
            "cluster_name",
        ),
    ),
    Difference(
        "Not available for VolumeSnapshots",
        "The time of the last change, and the user if it was made with kubectl. The progress is always present.",
        request=r"snapshots",
        applies=lambda answer: answer.status in (200, 202) and _has("snapshot", "snapshots")(answer),
        theirs=_without("updated_at", "user_id", "os-extended-snapshot-attributes:progress"),
        ours=_without("updated_at", "user_id", "os-extended-snapshot-attributes:progress"),
    ),
    Difference(
        "An in-use volume is reported with its pod",
        "The message names the pod that uses the volume, since nothing else shows it.",
        request=r"^POST backups .*<used>",
        applies=_status(400),
        theirs=_without("message"),
        ours=_without("message"),
    ),
    Difference(
        "Two lines in a description",
        "The message names the characters that are not allowed. Cinder's names the 3000 that are.",
        request=r"two\\nlines",
        theirs=_without("message"),
        ours=_without("message"),
    ),
    Difference(
        "Types are StorageClasses",
        "Their names, ids and descriptions are the cluster's.",
        request=r"^GET types",
        theirs=_without("id", "name", "description"),
        ours=_without("id", "name", "description"),
    ),
    Difference(
        "No quotas",
        "None of Cinder's quotas apply (-1). A ResourceQuota on VolumeBackups is reported with 413.",
        request=r"^GET limits$",
        theirs=_without(*_MOST),
        ours=_without(*_MOST),
    ),
    Difference(
        "Extensions",
        "Only those that exist here are listed.",
        request=r"^GET extensions$",
        theirs=_nothing,
        ours=_nothing,
    ),
    Difference(
        "updated_at of a new backup",
        "It is the time when the operator accepted the backup. Cinder's is null for a backup of a snapshot.",
        request=r"^GET backups/<night>$",
        theirs=_without("updated_at"),
        ours=_without("updated_at"),
    ),
    Difference(
        "A snapshot of another volume is reported by name",
        "A VolumeSnapshot names its claim. The volume's id is known only while that claim exists.",
        request=r"^POST backups .*<letters>",
        applies=_status(400),
        theirs=_without("message"),
        ours=_without("message"),
    ),
    Difference(
        "Next page after an offset",
        "Cinder's link repeats the offset, so that each page leaves out items. Ours does not.",
        request=r"limit=1&offset=1",
        theirs=_without("backups_links"),
        ours=_without("backups_links"),
    ),
    Difference(
        "A filter that is given twice",
        "The last one counts. Cinder applies both at once and finds nothing.",
        request=r"name=monday&name=tuesday",
        theirs=_nothing,
        ours=_nothing,
    ),
    Difference(
        "name~ before 3.34",
        "Cinder documents it from 3.34 on and accepts it from 3.31. Here it is rejected where it is not documented.",
        request=r"name~=day 3\.33",
        theirs=_nothing,
        ours=lambda answer: replace(_nothing(answer), status=200) if answer.status == 400 else answer,
    ),
    Difference(
        "Links without the project",
        "They name the project even if the request did not, so that others can use a link too.",
        request=r"^GET /v3/backups/",
        theirs=_without("links"),
        ours=_without("links"),
    ),
    Difference(
        "There is a v2",
        "It is in the list of versions, as it was in Cinder before 19.",
        request=r"^GET /$",
        theirs=_without("versions"),
        ours=_without("versions"),
    ),
    Difference(
        "/v3 needs no slash",
        "Cinder redirects to /v3/.",
        request=r"^GET /v3$",
        theirs=_nothing,
        ours=lambda answer: replace(_nothing(answer), status=302) if answer.status == 200 else answer,
    ),
    Difference(
        "Headers of a rejected version",
        "Vary is always present, and the requested version too if it is one.",
        request=r"^GET (/ 3\.99|backups (2\.0|abc|3\.x|3\.08|OpenStack-API-Version=compute 2\.1))$",
        theirs=_without_headers("vary", "openstack-api-version"),
        ours=_without_headers("vary", "openstack-api-version"),
    ),
    Difference(
        "Another project",
        "Kubernetes decides whether a caller may see it (403). Cinder compares it with the token's (400).",
        request=r"^GET /v3/ffffffff",
        theirs=lambda answer: Answer(403, {}, True, None),
        ours=lambda answer: Answer(answer.status, {}, True, None),
    ),
)


def applying(title: str, theirs: Answer) -> set[str]:
    """Names of the differences that apply."""
    return {difference.name for difference in ALL if difference.is_in(title, theirs)}
