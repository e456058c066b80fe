"""A stand-in for Keystone, for the real Cinder. It accepts every user, and the user "admin" is an administrator."""

import json
import uuid
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

import webob

LATER = "2999-01-01T00:00:00.000000Z"
VERSION = {"id": "v3.14", "status": "stable", "updated": "2020-04-07T00:00:00Z", "media-types": []}


class Identity:
    """``POST /identity/v3/auth/tokens`` with a catalog, and the versions document before it.

    Attributes:
        roles: the role of the user by token.
    """

    def __init__(self, endpoint: str, project: str, user: str) -> None:
        self.endpoint, self.project, self.user = endpoint, project, user
        self.roles: dict[str, str] = {}

    def __call__(self, environment: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Respond to a request."""
        request = webob.Request(environment)
        response = self._log_in(request) if request.method == "POST" else self._versions()
        return response(environment, start)

    def _versions(self) -> webob.Response:
        links = [{"rel": "self", "href": f"{self.endpoint}/identity/v3/"}]
        return webob.Response(json_body={"version": VERSION | {"links": links}})

    def _log_in(self, request: webob.Request) -> webob.Response:
        name = json.loads(request.body)["auth"]["identity"]["password"]["user"]["name"]
        token, domain = uuid.uuid4().hex, {"id": "default", "name": "Default"}
        self.roles[token] = name
        body = {
            "methods": ["password"],
            "user": {"id": self.user, "name": name, "domain": domain, "password_expires_at": None},
            "project": {"id": self.project, "name": self.project, "domain": domain},
            "roles": [{"id": name, "name": name}],
            "expires_at": LATER,
            "issued_at": "2026-01-01T00:00:00.000000Z",
            "audit_ids": ["a"],
            "catalog": [
                self._service("identity", f"{self.endpoint}/identity/v3"),
                *(self._service(kind, f"{self.endpoint}/v3/{self.project}") for kind in ("block-storage", "volumev3")),
            ],
        }
        return webob.Response(json_body={"token": body}, status=201, headers={"X-Subject-Token": token})

    def _service(self, kind: str, url: str) -> dict[str, object]:
        faces = [
            {"id": face, "interface": face, "region": "RegionOne", "region_id": "RegionOne", "url": url}
            for face in ("public", "internal", "admin")
        ]
        return {"id": kind, "type": kind, "name": "cinder", "endpoints": faces}
