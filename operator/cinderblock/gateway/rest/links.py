"""URLs that answers hold."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode


@dataclass(frozen=True, slots=True)
class Links:
    """Where the caller reached us.

    Attributes:
        endpoint: URL of the service's root, without a slash at its end.
        major: 2 or 3.
        project: the caller's project.
    """

    endpoint: str
    major: int
    project: str

    def of(self, collection: str, identifier: str) -> list[dict[str, str]]:
        """Links of one object (cinder/api/common.py ``ViewBuilder._get_links``)."""
        path = f"{self.project}/{collection}/{identifier}"
        return [
            {"rel": "self", "href": f"{self.endpoint}/v{self.major}/{path}"},
            {"rel": "bookmark", "href": f"{self.endpoint}/{path}"},
        ]

    def next_page(self, path: str, query: dict[str, str], marker: str) -> list[dict[str, str]]:
        """Link of the page after the one that ends with ``marker``; ``path`` is below the project."""
        parameters = urlencode(query | {"marker": marker})
        return [{"rel": "next", "href": f"{self.endpoint}/v{self.major}/{self.project}{path}?{parameters}"}]
