"""What ServiceAccounts asked the API server, from its audit log, beside what their roles grant."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

Object = dict[str, Any]


class Right(NamedTuple):
    """One verb on one type, as a role names it; the namespace is empty in a ClusterRole that is bound everywhere."""

    group: str
    resource: str
    verb: str
    namespace: str = ""

    def __str__(self) -> str:
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.resource}{'.' if self.group else ''}{self.group}{where}"


@dataclass
class Asked:
    """What one account asked.

    Attributes:
        allowed: every right that it used, with the binding that allowed it.
        refused: what it asked for and was not allowed.
    """

    allowed: dict[Right, set[str]] = field(default_factory=dict)
    refused: set[Right] = field(default_factory=set)


def granted(roles: Iterable[Object]) -> set[Right]:
    """Every right that ClusterRoles, bound everywhere, and Roles grant. Wildcards are not understood."""
    return {
        Right(group, resource, verb, role["metadata"].get("namespace", "") if role["kind"] == "Role" else "")
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def asked(lines: Iterable[str], account: str) -> Asked:
    """What an account (``namespace:name``) asked about objects; what is not about objects is for everybody."""
    found = Asked()
    for event in _events(lines, f"system:serviceaccount:{account}"):
        right = _right(event["objectRef"], event["verb"])
        notes = event.get("annotations", {})
        if notes.get("authorization.k8s.io/decision") == "allow":
            found.allowed.setdefault(right, set()).add(notes.get("authorization.k8s.io/reason", ""))
        else:
            found.refused.add(right)
    return found


def unused(rights: set[Right], used: Asked) -> set[Right]:
    """Rights that nobody made use of."""
    everywhere = {right._replace(namespace="") for right in used.allowed}
    return {right for right in rights if right not in (used.allowed if right.namespace else everywhere)}


def foreign(used: Asked, *roles: str) -> dict[Right, set[str]]:
    """Rights that were used and came from a role other than these: the account would not do with its own."""
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
    """The log from a place on; None: from now on."""

    def __init__(self, path: Path, start: int | None = None) -> None:
        self._path = path
        self._start = (path.stat().st_size if path.exists() else 0) if start is None else start

    def lines(self) -> list[str]:
        """What was written since; the last line may still be on its way."""
        with self._path.open("rb") as file:
            if self._path.stat().st_size < self._start:
                # The API server has begun a new file: what is in it is newer than what we remember.
                self._start = 0
            file.seek(self._start)
            return [line.decode() for line in file.read().splitlines(keepends=True) if line.endswith(b"\n")]
