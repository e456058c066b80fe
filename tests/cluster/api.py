"""The few API calls that starting a cluster needs, without a client library."""

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.cluster import waiting
from tests.cluster.errors import ClusterError

Manifest = Mapping[str, Any]

_SECONDS = 10
_PLURALS = {
    "CSIDriver": "csidrivers",
    "CustomResourceDefinition": "customresourcedefinitions",
    "SnapshotMetadataService": "snapshotmetadataservices",
    "StorageClass": "storageclasses",
    "VolumeSnapshotClass": "volumesnapshotclasses",
}
"""The kinds that can be applied; none of them is namespaced."""


class Api:
    """An API server, and a token for it."""

    def __init__(self, server: str, authority: Path, token: str) -> None:
        self._server = server
        self._token = token
        context = ssl.create_default_context(cafile=str(authority))
        # No proxy: the server is on this machine, whatever the environment says.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )

    def get(self, path: str) -> Any:
        """Return the object at the path, None if there is none. Raises ClusterError."""
        text = self._call("GET", path)
        return None if text is None else json.loads(text)

    def is_ready(self) -> bool:
        """Tell whether the server answers and says that it is ready."""
        try:
            return self._call("GET", "/readyz") == "ok"
        except ClusterError:
            return False

    def apply(self, manifest: Manifest) -> None:
        """Make the object as described, whether or not it exists. Raises ClusterError."""
        group = manifest["apiVersion"]
        path = f"/apis/{group}/{_PLURALS[manifest['kind']]}/{manifest['metadata']['name']}"
        self._apply(path, json.dumps(manifest).encode())

    def apply_definitions(self, files: Iterable[Path]) -> None:
        """Make CustomResourceDefinitions from files named `<group>_<plural>.yaml`, and wait until they are served."""
        paths = []
        for file in files:
            group, _, plural = file.stem.partition("_")
            paths.append(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.{group}")
            self._apply(paths[-1], file.read_bytes())
        waiting.until(lambda: all(map(self._is_established, paths)), 30, lambda: f"not all are served: {paths}")

    def _apply(self, path: str, content: bytes) -> None:
        query = "?fieldManager=tests.cluster&force=true"
        if self._call("PATCH", path + query, content, "application/apply-patch+yaml") is None:
            raise ClusterError(f"{self._server}{path}: the API server does not know this kind of object")

    def _is_established(self, path: str) -> bool:
        # The list is null for a moment after the creation.
        conditions = (self.get(path) or {}).get("status", {}).get("conditions") or []
        return any(condition["type"] == "Established" and condition["status"] == "True" for condition in conditions)

    def _call(self, method: str, path: str, content: bytes | None = None, kind: str = "application/json") -> str | None:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": kind, "Accept": "application/json"}
        request = urllib.request.Request(self._server + path, data=content, headers=headers, method=method)
        try:
            with self._opener.open(request, timeout=_SECONDS) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    return None
                raise ClusterError(f"{method} {self._server}{path}: {error.code}: {error.read().decode()}") from error
        except OSError as error:
            raise ClusterError(f"{method} {self._server}{path}: {error}") from error
