"""The input and the output of an operation."""

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
from cinderblock.kube.list_memory import ListAccount, ListMemory


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of an operation.

    Attributes:
        token: their Kubernetes token; None with ``--auth=none``.
        project: the namespace of the request.
        kube: a client that sends their token, and no other credentials.
    """

    token: str | None = field(repr=False)
    project: str
    kube: KubeClient


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One request to an operation.

    Attributes:
        caller: the caller.
        version: the version that they use: (2, 0), or (3, 0) to (3, 71).
        path: parameters of the path.
        query: parameters of the query; the last one if a parameter is repeated.
        body: the unparsed body.
        links: builds the URLs of the response.
        list_cache: the lists that are being read page by page.
        account: the memory that lists of this request draw from.
    """

    caller: Caller
    version: Version
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes = field(repr=False)
    links: Links
    list_cache: ListCache = field(default_factory=ListCache)
    account: ListAccount = field(default_factory=lambda: ListAccount(ListMemory()))

    @property
    def kube(self) -> KubeClient:
        """The caller's client."""
        return self.caller.kube

    @property
    def project(self) -> str:
        """The caller's namespace."""
        return self.caller.project

    def at_least(self, minor: int) -> bool:
        """Return whether the caller uses microversion 3.``minor`` or a later one, and not v2."""
        return self.version >= (3, minor)

    def json(self) -> object:
        """Parse the body. Raises InvalidInput if it is not JSON, or nested too deeply."""
        return rest_body.parse(self.body)

    def validated(self, schema: Schema) -> dict[str, Any]:
        """Return the body, an object that matches ``schema``. Raises InvalidInput with Cinder's messages."""
        body = self.json()
        validation.check(body, schema)
        assert isinstance(body, dict)
        return body


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """The response of an operation.

    Attributes:
        status: HTTP code.
        body: becomes JSON; None: no body.
        headers: additional headers.
    """

    status: int
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
