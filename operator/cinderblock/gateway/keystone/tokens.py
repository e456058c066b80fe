"""What a Kubernetes token means in Keystone's words: a user, a project, roles, a catalog, an end."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cinderblock.errors import AccessDenied, InvalidInput
from cinderblock.gateway.auth import claims, namespace_in, user_name
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import NAMESPACE, SELF_SUBJECT_ACCESS_REVIEW, VOLUME_BACKUP
from cinderblock.reasons import Reason

DOMAIN: Final = {"id": "default", "name": "Default"}
NEVER: Final = "9999-12-31T23:59:59.000000Z"
"""The end of a token that does not say when it ends."""
SERVICES: Final = (
    ("block-storage", "cinder", "/v3/{project}"),
    ("volumev3", "cinderv3", "/v3/{project}"),
    ("volumev2", "cinderv2", "/v2/{project}"),
    ("identity", "keystone", "/identity/v3"),
)
_ROLES: Final = (("reader", "list", ""), ("member", "create", ""), ("admin", "patch", "status"))
"""What a role is here: the right to do this with VolumeBackups, or with a subresource of theirs."""


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who has logged in to a project.

    Attributes:
        user: the name that the API server knows them by.
        project: the namespace; None: none was asked for and the user has none.
        roles: of reader, member and admin those that their rights in the project amount to.
        said: what their token says of itself; it decides nothing.
    """

    user: str
    project: str | None
    roles: tuple[str, ...]
    claims: Mapping[str, Any]

    def body(self, endpoint: str) -> dict[str, Any]:
        """The token in Keystone's words; ``endpoint`` is the URL of our root."""
        token: dict[str, Any] = {
            "methods": ["password"],
            "user": {"id": self.user, "name": self.user, "domain": DOMAIN, "password_expires_at": None},
            "audit_ids": [secrets.token_urlsafe(16)],
            "issued_at": _instant(self.claims.get("iat")) or _written(datetime.now(UTC)),
            "expires_at": _instant(self.claims.get("exp")) or NEVER,
        }
        if self.project is not None:
            token |= {
                "project": {"id": self.project, "name": self.project, "domain": DOMAIN},
                "is_domain": False,
                "roles": [{"id": role, "name": role} for role in self.roles],
                "catalog": catalog(endpoint, self.project),
            }
        return {"token": token}


async def open_session(kube: KubeClient, token: str, project: str | None) -> Session:
    """The session of a token. The API server says whose it is and what they may do.

    Raises:
        AccessDenied: it is no good token, or gives no right in the project (reason Unauthorized, as Keystone has it).
    """
    said = claims(token)
    if project is None:
        project = _home(said)
    user = await user_name(kube)
    if project is None:
        return Session(user, None, (), said)
    roles = await roles_in(kube, project)
    if not roles:
        raise AccessDenied(f"User {user} has no access to project {project}", reason=Reason.UNAUTHORIZED)
    return Session(user, project, roles, said)


async def roles_in(kube: KubeClient, project: str) -> tuple[str, ...]:
    """The roles that the caller's rights in a namespace amount to; none if there is no such namespace."""
    try:
        if await kube.get(NAMESPACE, project) is None:
            return ()
    except AccessDenied as error:
        # Few may read namespaces; who has rights in one that is not there can do nothing with them.
        if error.reason == Reason.UNAUTHORIZED:
            raise
    allowed = await asyncio.gather(*(_may(kube, project, verb, part) for _, verb, part in _ROLES))
    return tuple(role for (role, _, _), may in zip(_ROLES, allowed, strict=True) if may)


async def _may(kube: KubeClient, project: str, verb: str, subresource: str) -> bool:
    attributes = {
        "namespace": project,
        "verb": verb,
        "group": VOLUME_BACKUP.group,
        "resource": VOLUME_BACKUP.plural,
        "subresource": subresource,
    }
    status = await kube.create_review(SELF_SUBJECT_ACCESS_REVIEW, {"resourceAttributes": attributes})
    return bool(status.get("allowed"))


def catalog(endpoint: str, project: str) -> list[dict[str, Any]]:
    """Where the services are: with every name that clients have had for Cinder."""
    return [_service(kind, name, endpoint + path.format(project=project)) for kind, name, path in SERVICES]


def _service(kind: str, name: str, url: str) -> dict[str, Any]:
    faces = [
        {"id": f"{kind}-{face}", "interface": face, "region": "RegionOne", "region_id": "RegionOne", "url": url}
        for face in ("public", "internal", "admin")
    ]
    return {"id": kind, "type": kind, "name": name, "endpoints": faces}


def _home(said: Mapping[str, Any]) -> str | None:
    try:
        return namespace_in(said)
    except InvalidInput:
        return None


def _instant(seconds: object) -> str | None:
    """A time in a token (RFC 7519 NumericDate) as Keystone writes it."""
    if not isinstance(seconds, int | float) or not 0 < seconds < 253_402_300_800:
        return None
    return _written(datetime.fromtimestamp(seconds, UTC))


def _written(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
