"""URLs in responses."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode


@dataclass(frozen=True, slots=True)
class Links:
    """Builds URLs under which the caller reaches the gateway.

    Attributes:
        endpoint: root URL of the service, without a trailing slash.
        major: major version, 2 or 3.
        project: the caller's project.
    """

    endpoint: str
    major: int
    project: str

    def of(self, collection: str, identifier: str) -> list[dict[str, str]]:
        """Return the links of one object (cinder/api/common.py ``ViewBuilder._get_links``)."""
        path = f"{self.project}/{collection}/{identifier}"
        return [
            {"rel": "self", "href": f"{self.endpoint}/v{self.major}/{path}"},
            {"rel": "bookmark", "href": f"{self.endpoint}/{path}"},
        ]

    def next_page(self, path: str, query: dict[str, str], marker: str) -> list[dict[str, str]]:
        """Return the link to the page after ``marker``; ``path`` is below the project."""
        parameters = urlencode(query | {"marker": marker})
        return [{"rel": "next", "href": f"{self.endpoint}/v{self.major}/{self.project}{path}?{parameters}"}]
