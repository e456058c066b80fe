"""A recorded release: what it left in a cluster and in a bucket, put in place again with the same UIDs."""

from __future__ import annotations

import base64
import json
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cinderblock.store.base import ObjectStore
from tests.upgrade.contents import Contents, read_contents
from tests.upgrade.recording import ENDPOINT

RELEASES = Path(__file__).parents[1] / "data" / "releases"
_PREFIXES = {
    "Secret": "secrets",
    "Pod": "pods",
    "Job": "jobs",
    "PersistentVolume": "persistentvolumes",
    "PersistentVolumeClaim": "persistentvolumeclaims",
    "StorageClass": "storageclasses",
    "VolumeSnapshot": "snapshot.storage.k8s.io/volumesnapshots",
    "VolumeSnapshotClass": "snapshot.storage.k8s.io/volumesnapshotclasses",
    "BackupStore": "cinderblock.io/backupstores",
    "VolumeBackup": "cinderblock.io/volumebackups",
    "VolumeRestore": "cinderblock.io/volumerestores",
}
"""Where API servers keep objects in etcd, below /registry/: built-in kinds by resource, others by group as well."""

Object = dict[str, Any]


@dataclass(frozen=True)
class Release:
    """A folder of tests/data/releases.

    Attributes:
        directory: the folder.
        endpoint: URL of the S3 server that stands for the recorded one.
    """

    directory: Path
    endpoint: str

    @property
    def definitions(self) -> Path:
        """Return the folder with the release's CustomResourceDefinitions."""
        return self.directory / "crds"

    @property
    def objects(self) -> list[Object]:
        """Return all objects that the users and the operator of the release left in the cluster."""
        return self._documents("objects.yaml")

    @property
    def manifests(self) -> str:
        """Return the objects that users applied, as one file for kubectl."""
        return yaml.safe_dump_all(self._documents("manifests.yaml"))

    @property
    def contents(self) -> dict[str, Contents]:
        """Return the content of each backup, by the name of its VolumeBackup."""
        return read_contents(self.directory / "contents.json")

    @property
    def messages(self) -> dict[str, str]:
        """Return the termination messages of movers that ended while no operator ran, by the name of their owner."""
        found: dict[str, str] = json.loads((self.directory / "termination-messages.json").read_text())
        return found

    def fill(self, store: ObjectStore) -> None:
        """Put the recorded objects into an empty bucket."""
        bucket = self.directory / "bucket"
        for path in sorted(bucket.rglob("*")):
            if path.is_file():
                store.put(str(path.relative_to(bucket)), path.read_bytes())

    def put_in_place(self, etcd: str) -> None:
        """Write the recorded objects into the etcd of an API server, below the API and so with their UIDs.

        API servers keep custom resources as JSON, and read built-in kinds as JSON too, whatever they write themselves.
        """
        for body in self.objects:
            metadata = body["metadata"]
            place = [_PREFIXES[body["kind"]], metadata.get("namespace"), metadata["name"]]
            _put(etcd, "/registry/" + "/".join(filter(None, place)), json.dumps(body).encode())

    def _documents(self, name: str) -> list[Object]:
        text = (self.directory / name).read_text().replace(ENDPOINT, self.endpoint)
        return list(yaml.load_all(text, Loader=yaml.CSafeLoader))


def _put(etcd: str, key: str, value: bytes) -> None:
    """Write one key through etcd's JSON gateway (etcd: api/grpc-gateway)."""
    body = {"key": base64.b64encode(key.encode()).decode(), "value": base64.b64encode(value).decode()}
    request = urllib.request.Request(f"{etcd}/v3/kv/put", json.dumps(body).encode())
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        answer.read()
