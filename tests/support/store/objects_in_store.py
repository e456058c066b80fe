"""The objects in the embedded S3 server, read with the credentials of a namespace."""

from __future__ import annotations

import base64
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from cinderblock.api.layout import owner_key
from cinderblock.api.mover import StoreLocation
from cinderblock.store.base import ObjectStore
from cinderblock.store.credentials import credentials_from_secret
from cinderblock.store.factory import open_store
from tests.cluster.toolchain import tool
from tests.support.cluster.cluster import RELEASE_NAMESPACE, KubeCluster, KubeClusterError

SERVICE = "svc/cinderblock-store"
PORT = 7070


@dataclass(frozen=True)
class EmbeddedStore:
    """The bucket of a namespace's default BackupStore.

    Attributes:
        container: the bucket.
        prefix: prefix of the store's keys.
        secret: data of the credentials Secret.
    """

    container: str
    prefix: str
    secret: dict[str, bytes]

    @classmethod
    def of(cls, kube: KubeCluster, namespace: str, name: str = "default") -> EmbeddedStore:
        """Read a BackupStore of a namespace and its Secret."""
        store = kube.get("backupstore", name, namespace)
        if store is None:
            raise KubeClusterError(f"namespace {namespace} has no BackupStore {name}")
        secret = kube.get("secret", store["spec"]["credentialsSecretRef"]["name"], namespace)
        data = {key: base64.b64decode(value) for key, value in (secret or {}).get("data", {}).items()}
        return cls(store["spec"]["container"], store["spec"].get("prefix", ""), data)

    def keys(self, kube: KubeCluster) -> set[str]:
        """Return the keys of all objects below the prefix, except owner markers, which belong to no backup."""
        with self.opened(kube) as store:
            found = {item.key for item in store.list(f"{self.prefix}/" if self.prefix else "")}
        return {key for key in found if not f"/{key}".endswith(f"/{owner_key('')}")}

    @contextmanager
    def opened(self, kube: KubeCluster) -> Iterator[ObjectStore]:
        """Open the bucket through a port that kubectl forwards."""
        with forwarded(kube) as port:
            location = StoreLocation(endpoint_url=f"http://127.0.0.1:{port}", container=self.container)
            with closing(open_store(location, credentials_from_secret(self.secret))) as store:
                yield store


@contextmanager
def forwarded(kube: KubeCluster) -> Iterator[int]:
    """Forward a local port to the embedded S3 server inside the block.

    kubectl chooses the port: of one that was free a moment ago, a server of another test may answer.
    """
    command = [
        str(tool("kubectl")),
        "-n",
        RELEASE_NAMESPACE,
        "port-forward",
        "--address=127.0.0.1",
        SERVICE,
        f":{PORT}",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield _forwarded_port(process)
        finally:
            process.terminate()


def _forwarded_port(process: subprocess.Popen[str]) -> int:
    """Return the port that kubectl forwards, and read what it prints later, so that it never waits for a reader."""
    assert process.stdout is not None
    found = re.match(r"Forwarding from 127\.0\.0\.1:(\d+) ", process.stdout.readline())
    if found is None:
        raise KubeClusterError("kubectl port-forward to the embedded store did not come up")
    threading.Thread(target=process.stdout.read, daemon=True).start()
    return int(found[1])
