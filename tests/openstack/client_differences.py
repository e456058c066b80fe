"""Where clients are meant to print something else than with Cinder: it follows from tests.openstack.differences."""

from __future__ import annotations

import re
from typing import Any

_OURS = re.compile(
    r'^\|? ?"?(os-backup-project-attr:project_id|project_id|user_id|os-vol-tenant-attr:tenant_id|volume_type_id|type)\b'
)
"""Lines about users, projects and types: who may see them, and what they are called, is different."""
_TYPE = re.compile(r"\| (__DEFAULT__|standard) \|")
_NO_USER = re.compile(r"\| (- )?\|$")

_EXPORTED_BY_MEMBER = re.compile(r"(backup-export <monday>|record export n3)$")
"""Everybody may export a record who may read the backup."""
_UNSET = "openstack volume backup unset"
"""The client sends a request that Cinder does not have (and to remove the properties that are to stay): 404 in both."""


def pair(title: str, theirs: dict[str, Any], ours: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is left to compare of what a client printed with Cinder and with us."""
    if _EXPORTED_BY_MEMBER.search(title):
        return {"code": 0}, {"code": ours["code"]}
    if title.startswith(_UNSET):
        return {"code": theirs["code"], "err": _error(theirs)}, {"code": ours["code"], "err": _error(ours)}
    return _plain(theirs), _plain(ours)


def _error(told: dict[str, Any]) -> str:
    """The error without the message."""
    return str(told["err"][0]).split(",", maxsplit=1)[0]


def _plain(told: dict[str, Any]) -> dict[str, Any]:
    lines = [line for line in told["out"] if not _OURS.match(line)]
    return told | {"out": [_NO_USER.sub("| |", _TYPE.sub("| <type> |", line)) for line in lines]}
