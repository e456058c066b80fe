"""The API requests of ServiceAccounts, from the audit log, compared with the rights that their roles grant."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

Object = dict[str, Any]


class Right(NamedTuple):
    """One verb on one type, as in a role. The namespace is empty for a ClusterRole that is bound in all namespaces."""

    group: str
    resource: str
    verb: str
    namespace: str = ""

    def __str__(self) -> str:
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.resource}{'.' if self.group else ''}{self.group}{where}"


@dataclass
class UsedRights:
    """The requests of one account.

    Attributes:
        allowed: every right that it used, with the binding that allowed it.
        refused: what it asked for and was not allowed.
    """

    allowed: dict[Right, set[str]] = field(default_factory=dict)
    refused: set[Right] = field(default_factory=set)


def granted(roles: Iterable[Object]) -> set[Right]:
    """Return every right of Roles, and of ClusterRoles that are bound in all namespaces.

    Wildcards are not supported.
    """
    return {
        Right(group, resource, verb, role["metadata"].get("namespace", "") if role["kind"] == "Role" else "")
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def rights_used_by(lines: Iterable[str], account: str) -> UsedRights:
    """Return the rights that an account (``namespace:name``) used for objects. Everyone may use the other endpoints."""
    found = UsedRights()
    for event in _events(lines, f"system:serviceaccount:{account}"):
        right = _right(event["objectRef"], event["verb"])
        notes = event.get("annotations", {})
        if notes.get("authorization.k8s.io/decision") == "allow":
            found.allowed.setdefault(right, set()).add(notes.get("authorization.k8s.io/reason", ""))
        else:
            found.refused.add(right)
    return found


def unused(rights: set[Right], used: UsedRights) -> set[Right]:
    """Return the rights that no request used."""
    everywhere = {right._replace(namespace="") for right in used.allowed}
    return {right for right in rights if right not in (used.allowed if right.namespace else everywhere)}


def foreign(used: UsedRights, *roles: str) -> dict[Right, set[str]]:
    """Return the used rights that come from other roles: the account could not work with its own roles alone."""
    return {
        right: reasons
        for right, reasons in used.allowed.items()
        if not any(
            f'of {kind} "{role}"' in reason for reason in reasons for role in roles for kind in ("ClusterRole", "Role")
        )
    }


def _events(lines: Iterable[str], user: str) -> Iterator[Object]:
    for line in lines:
        event: Object = json.loads(line)
        if event["user"]["username"] == user and "objectRef" in event:
            yield event


def _right(reference: Object, verb: str) -> Right:
    sub = f"/{reference['subresource']}" if reference.get("subresource") else ""
    resource = f"{reference['resource']}{sub}"
    return Right(reference.get("apiGroup", ""), resource, verb, reference.get("namespace", ""))


class AuditLog:
    """The audit log from a position on, by default from its present end."""

    def __init__(self, path: Path, start: int | None = None) -> None:
        self._path = path
        self._start = (path.stat().st_size if path.exists() else 0) if start is None else start

    def lines(self) -> list[str]:
        """Return the lines that were written since then. The last line may still be incomplete."""
        with self._path.open("rb") as file:
            if self._path.stat().st_size < self._start:
                # The API server has begun a new file: what is in it is newer than what we remember.
                self._start = 0
            file.seek(self._start)
            return [line.decode() for line in file.read().splitlines(keepends=True) if line.endswith(b"\n")]
