"""Versions of the API: the header that asks for a microversion, and the documents that clients look for first."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from typing_extensions import override

from cinderblock.errors import InvalidInput
from cinderblock.reasons import Reason

SERVICE: Final = "volume"
"""The service's name in the header (cinder/api/openstack/api_version_request.py)."""
HEADER: Final = "OpenStack-API-Version"

_VERSION: Final = re.compile(r"([1-9]\d*)\.([1-9]\d*|0)")
_MALFORMED: Final = "The server could not comply with the request since it is either malformed or otherwise incorrect."


class Version(NamedTuple):
    """A version of the API, with the microversion: (3, 43). Of v2, only (2, 0) is there."""

    major: int
    minor: int

    @override
    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


V2: Final = Version(2, 0)
MINIMUM: Final = Version(3, 0)
MAXIMUM: Final = Version(3, 71)
"""The highest microversion that Cinder 29 has; none above 3.64 changes what a backup looks like."""


def negotiated(header: str | None) -> Version:
    """The microversion that a request to /v3 asks for; without a header 3.0.

    Raises:
        InvalidInput: the header is none of Cinder's; with reason NotAcceptable if we do not speak that version.
    """
    if not header:
        return MINIMUM
    asked = [part.split() for part in header.split(",")]
    own = [words[1] for words in asked if len(words) == 2 and words[0].lower() == SERVICE]
    if not own:
        raise InvalidInput(_MALFORMED)
    if own[0].lower() == "latest":
        return MAXIMUM
    found = _VERSION.fullmatch(own[0])
    if found is None or len(own[0]) > 12:
        raise InvalidInput(
            f"API Version String {own[0][:64]} is of invalid format. Must be of format MajorNum.MinorNum."
        )
    version = Version(int(found[1]), int(found[2]))
    if not MINIMUM <= version <= MAXIMUM:
        raise InvalidInput(
            f"Version {version} is not supported by the API. Minimum is {MINIMUM} and maximum is {MAXIMUM}.",
            reason=Reason.NOT_ACCEPTABLE,
        )
    return version


def document(endpoint: str) -> dict[str, Any]:
    """What is at ``/``: every version (cinder/api/versions.py). ``endpoint`` is the URL of the service's root."""
    return {"versions": [_v3(endpoint), _v2(endpoint)]}


def document_of(endpoint: str, major: int) -> dict[str, Any]:
    """What is at ``/v3/`` or ``/v2/``: that version alone."""
    return {"versions": [_v3(endpoint) if major == MAXIMUM.major else _v2(endpoint)]}


def _v3(endpoint: str) -> dict[str, Any]:
    return {
        "id": "v3.0",
        "status": "CURRENT",
        "version": str(MAXIMUM),
        "min_version": str(MINIMUM),
        "updated": "2023-08-31T00:00:00Z",
        "links": _links(endpoint, 3),
        "media-types": _media_types(3),
    }


def _v2(endpoint: str) -> dict[str, Any]:
    return {
        "id": "v2.0",
        "status": "DEPRECATED",
        "version": "",
        "min_version": "",
        "updated": "2017-02-25T12:00:00Z",
        "links": _links(endpoint, 2),
        "media-types": _media_types(2),
    }


def _links(endpoint: str, major: int) -> list[dict[str, str]]:
    documentation = {"rel": "describedby", "type": "text/html", "href": "https://docs.openstack.org/"}
    return [documentation, {"rel": "self", "href": f"{endpoint}/v{major}/"}]


def _media_types(major: int) -> list[dict[str, str]]:
    return [{"base": "application/json", "type": f"application/vnd.openstack.volume+json;version={major}"}]
