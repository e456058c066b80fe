"""What an operation is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cinderblock.gateway.rest import body as rest_body
from cinderblock.gateway.rest import validation
from cinderblock.gateway.rest.links import Links
from cinderblock.gateway.rest.list_cache import ListCache
from cinderblock.gateway.rest.microversions import Version
from cinderblock.gateway.rest.validation import Schema
from cinderblock.kube.client import KubeClient


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        token: their Kubernetes token; None: they need none (``--auth=none``).
        project: the namespace that the request is about.
        kube: a client that shows their token, and nothing else, with each request.
    """

    token: str | None = field(repr=False)
    project: str
    kube: KubeClient


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One request to an operation.

    Attributes:
        caller: who makes it.
        version: what they speak: (2, 0), or (3, 0) to (3, 71).
        path: the path's parameters.
        query: the query's parameters; of a repeated one the last.
        body: as it came.
        links: for the answer.
        walks: the lists that are being read page by page.
    """

    caller: Caller
    version: Version
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes = field(repr=False)
    links: Links
    list_cache: ListCache = field(default_factory=ListCache)

    @property
    def kube(self) -> KubeClient:
        """The caller's client."""
        return self.caller.kube

    @property
    def project(self) -> str:
        """The caller's namespace."""
        return self.caller.project

    def at_least(self, minor: int) -> bool:
        """Whether the caller speaks microversion 3.``minor`` or a later one; nobody does who speaks v2."""
        return self.version >= (3, minor)

    def json(self) -> object:
        """The body. Raises InvalidInput if it is no JSON, has a number that JSON has not, or is nested too deep."""
        return rest_body.parse(self.body)

    def checked(self, schema: Schema) -> dict[str, Any]:
        """The body, which is an object that fits ``schema``. Raises InvalidInput in Cinder's words."""
        body = self.json()
        validation.check(body, schema)
        assert isinstance(body, dict)
        return body


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """What is answered.

    Attributes:
        status: HTTP code.
        body: becomes JSON; None: nothing is sent.
        headers: more headers.
    """

    status: int
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
