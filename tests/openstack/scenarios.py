"""Scenarios: a few volumes, snapshots and backups, and a sequence of requests about them.

They are played to the real Cinder, whose answers are recorded, and to the gateway, whose answers are compared with
them. ``<name>`` in a request stands for the id of the object with that name, ``<project>`` for the project. A step of
tests/data/cinder/scenarios/*.yaml is one of

    get, post, put, delete: a request to a path, which is below ``/v3/<project>/`` if it does not start with a slash,
        with: version (microversion), role (member, admin, reader), body (JSON), raw (text), type (content type),
        header (more headers), remember (name -> where in the answer its id is)
    run: a command line of a client, with: role, remember (name -> which row of the printed table has its id)
    becomes: {kind, name, and the fields that change}, done by the service behind the API
    gone: {kind, name}
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

DATA = Path(__file__).parents[1] / "data" / "cinder"
METHODS = ("get", "post", "put", "delete", "patch")
LONG = "<long>"
"""In a request, stands for 256 letters, one more than most of Cinder's fields accept."""


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        path: as the scenario has it, with names in angle brackets.
        version: microversion; empty: the header is not sent.
        role: who asks.
        remember: where in the answer the id of a new name is, as ``backup.id``.
    """

    method: str
    path: str
    version: str = ""
    role: str = "member"
    body: Any = None
    raw: str | None = None
    type: str = "application/json"
    header: dict[str, str] = field(default_factory=dict)
    remember: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """A readable name: ``POST backups {...} 3.43 admin``."""
        sent = self.raw if self.raw is not None else json.dumps(self.body) if self.body is not None else ""
        sent_headers = " ".join(f"{name}={value}" for name, value in self.header.items())
        kind = "" if self.type == "application/json" else self.type
        role = "" if self.role == "member" else f"as {self.role}"
        return " ".join(filter(None, [self.method, self.path, sent, self.version, kind, sent_headers, role]))

    @property
    def headers(self) -> dict[str, str]:
        """Headers to send, except the token."""
        versioned = {"OpenStack-API-Version": f"volume {self.version}"} if self.version else {}
        typed = {"Content-Type": self.type} if self.sent is not None else {}
        return {"Accept": "application/json", **typed, **versioned, **self.header}

    @property
    def sent(self) -> str | None:
        """The body as text, with names in angle brackets; None: no body."""
        return self.raw if self.raw is not None else json.dumps(self.body) if self.body is not None else None


@dataclass(frozen=True)
class Command:
    """One call of a client.

    Attributes:
        line: the command line, with names in angle brackets.
        role: who asks.
        remember: in which row of the printed table the id of a new name is.
    """

    line: str
    role: str = "member"
    remember: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """A readable name."""
        return self.line if self.role == "member" else f"{self.line} as {self.role}"


@dataclass(frozen=True)
class Change:
    """An action of the service behind the API: it changes fields of an object, or deletes it (None)."""

    kind: str
    name: str
    fields: dict[str, Any] | None


@dataclass(frozen=True)
class Scenario:
    """Objects, and requests about them.

    Attributes:
        objects: the initial objects, with kind and fields of each.
    """

    name: str
    objects: list[tuple[str, dict[str, Any]]]
    steps: list[Request | Command | Change]

    @property
    def recording(self) -> Path:
        """Path of the real Cinder's recorded answers."""
        return DATA / "answers" / f"{self.name}.json"

    @property
    def titles(self) -> list[str]:
        """The titles of the requests, in order."""
        return [step.title for step in self.steps if not isinstance(step, Change)]


def every(kind: type[Request | Command]) -> list[Scenario]:
    """Return all scenarios of requests or of commands, by name."""
    paths = sorted((DATA / "scenarios").glob("*.yaml"))
    return [found for found in map(_read, paths) if any(isinstance(step, kind) for step in found.steps)]


def _read(path: Path) -> Scenario:
    described = yaml.safe_load(path.read_text("utf-8"))
    objects = [_planted(item) for item in described.get("objects", ())]
    return Scenario(path.stem, objects, [_step(item) for item in described["steps"]])


def _planted(item: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    kind = next(kind for kind in ("backup", "snapshot", "volume") if kind in item and _is_name_of(kind, item))
    return kind, {"name": item[kind]} | {key: value for key, value in item.items() if key != kind}


def _is_name_of(kind: str, item: dict[str, Any]) -> bool:
    """Return whether the item is of this kind. Backups and snapshots also have a field ``volume``."""
    return kind != "volume" or not {"backup", "snapshot"} & item.keys()


def _step(item: dict[str, Any]) -> Request | Command | Change:
    if "run" in item:
        return Command(item["run"], **{key: value for key, value in item.items() if key != "run"})
    if "becomes" in item:
        fields = dict(item["becomes"])
        return Change(fields.pop("kind"), fields.pop("name"), fields)
    if "gone" in item:
        return Change(item["gone"]["kind"], item["gone"]["name"], None)
    method = next(method for method in METHODS if method in item)
    rest = {key: value for key, value in item.items() if key != method}
    return Request(method.upper(), item[method], **rest)
