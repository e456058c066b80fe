"""Intended differences in the output of clients, which follow from tests.openstack.differences."""

from __future__ import annotations

import re
from typing import Any

_OURS = re.compile(
    r'^\|? ?"?(os-backup-project-attr:project_id|project_id|user_id|os-vol-tenant-attr:tenant_id|volume_type_id|type)\b'
)
"""Lines about users, projects and types, whose names and visibility differ."""
_TYPE = re.compile(r"\| (__DEFAULT__|standard) \|")
_NO_USER = re.compile(r"\| (- )?\|$")

_EXPORTED_BY_MEMBER = re.compile(r"(backup-export <monday>|record export n3)$")
"""All callers who can read a backup can export its record."""
_UNSET = "openstack volume backup unset"
"""The client sends a request that Cinder does not have, and one that removes properties: 404 for both."""


def pair(title: str, theirs: dict[str, Any], ours: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the outputs of a client for Cinder and for the gateway without intended differences."""
    if _EXPORTED_BY_MEMBER.search(title):
        return {"code": 0}, {"code": ours["code"]}
    if title.startswith(_UNSET):
        return {"code": theirs["code"], "err": _error(theirs)}, {"code": ours["code"], "err": _error(ours)}
    return _plain(theirs), _plain(ours)


def _error(output: dict[str, Any]) -> str:
    """Return the error without its message."""
    return str(output["err"][0]).split(",", maxsplit=1)[0]


def _plain(output: dict[str, Any]) -> dict[str, Any]:
    lines = [line for line in output["out"] if not _OURS.match(line)]
    return output | {"out": [_NO_USER.sub("| |", _TYPE.sub("| <type> |", line)) for line in lines]}
