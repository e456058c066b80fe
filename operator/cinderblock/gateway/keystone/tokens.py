"""A Kubernetes token in Keystone's form: user, project, roles, service catalog, expiry."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cinderblock.errors import AccessDenied, InvalidInput
from cinderblock.gateway.auth import claims, namespace_of, user_name
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import NAMESPACE, SELF_SUBJECT_ACCESS_REVIEW, VOLUME_BACKUP
from cinderblock.reasons import Reason

DOMAIN: Final = {"id": "default", "name": "Default"}
NEVER: Final = "9999-12-31T23:59:59.000000Z"
"""Expiry of a token that names none."""
SERVICES: Final = (
    ("block-storage", "cinder", "/v3/{project}"),
    ("volumev3", "cinderv3", "/v3/{project}"),
    ("volumev2", "cinderv2", "/v2/{project}"),
    ("identity", "keystone", "/identity/v3"),
)
_ROLES: Final = (("reader", "list", ""), ("member", "create", ""), ("admin", "patch", "status"))
"""A role stands for the right to use this verb on VolumeBackups, or on a subresource of them."""


@dataclass(frozen=True, slots=True)
class Session:
    """A user who is logged in to a project.

    Attributes:
        user: the user's name in Kubernetes.
        project: the namespace; None if none was requested and the user has none.
        roles: the roles reader, member and admin that match the user's rights in the project.
        claims: the unverified claims of the token, which grant no rights.
    """

    user: str
    project: str | None
    roles: tuple[str, ...]
    claims: Mapping[str, Any]

    def body(self, endpoint: str) -> dict[str, Any]:
        """Return the token in Keystone's form; ``endpoint`` is the gateway's root URL."""
        token: dict[str, Any] = {
            "methods": ["password"],
            "user": {"id": self.user, "name": self.user, "domain": DOMAIN, "password_expires_at": None},
            "audit_ids": [secrets.token_urlsafe(16)],
            "issued_at": _parse_time(self.claims.get("iat")) or _format_time(datetime.now(UTC)),
            "expires_at": _parse_time(self.claims.get("exp")) or NEVER,
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
    """Return the session of a token, from what the API server knows about the user.

    Raises:
        AccessDenied: the token is invalid, or gives no rights in the project (reason Unauthorized, as in Keystone).
    """
    token_claims = claims(token)
    if project is None:
        project = _own_project(token_claims)
    user = await user_name(kube)
    if project is None:
        return Session(user, None, (), token_claims)
    roles = await roles_in(kube, project)
    if not roles:
        raise AccessDenied(f"User {user} has no access to project {project}", reason=Reason.UNAUTHORIZED)
    return Session(user, project, roles, token_claims)


async def roles_in(kube: KubeClient, project: str) -> tuple[str, ...]:
    """Return the roles that match the caller's rights in a namespace; none if it does not exist."""
    try:
        if await kube.get(NAMESPACE, project) is None:
            return ()
    except AccessDenied as error:
        # Most callers may not read namespaces. Rights in a namespace that does not exist have no effect.
        if error.reason == "Unauthorized":
            raise
    allowed = await asyncio.gather(*(_is_allowed(kube, project, verb, part) for _, verb, part in _ROLES))
    return tuple(role for (role, _, _), is_allowed in zip(_ROLES, allowed, strict=True) if is_allowed)


async def _is_allowed(kube: KubeClient, project: str, verb: str, subresource: str) -> bool:
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
    """Return the service catalog, with every name that clients have used for Cinder."""
    return [_service(kind, name, endpoint + path.format(project=project)) for kind, name, path in SERVICES]


def _service(kind: str, name: str, url: str) -> dict[str, Any]:
    endpoints = [
        {
            "id": f"{kind}-{interface}",
            "interface": interface,
            "region": "RegionOne",
            "region_id": "RegionOne",
            "url": url,
        }
        for interface in ("public", "internal", "admin")
    ]
    return {"id": kind, "type": kind, "name": name, "endpoints": endpoints}


def _own_project(token_claims: Mapping[str, Any]) -> str | None:
    try:
        return namespace_of(token_claims)
    except InvalidInput:
        return None


def _parse_time(seconds: object) -> str | None:
    """Return a time of a token (RFC 7519 NumericDate) in Keystone's format; None if it is invalid."""
    if not isinstance(seconds, int | float) or not 0 < seconds < 253_402_300_800:
        return None
    return _format_time(datetime.fromtimestamp(seconds, UTC))


def _format_time(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
